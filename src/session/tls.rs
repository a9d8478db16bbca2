//! TLS of one server: authorities that are trusted beside the system's, and the certificate that this client shows. Read from the files that
//! the server's entry names; what is in them is in no message.

use std::path::Path;

use reqwest::{Certificate, ClientBuilder, Identity};

use super::ConfigPlace;
use crate::config::HttpConfig;
use crate::error::Error;
use crate::files;

/// Larger files are none with certificates. The bundles of systems have 200 to 500 KiB.
const FILE_BYTES: usize = 4 << 20;

/// What an entry says of TLS, read and understood.
#[derive(Default)]
pub(super) struct Tls {
    authorities: Vec<Certificate>,
    identity: Option<Identity>,
}

impl Tls {
    pub(super) fn new(config: &HttpConfig, place: &ConfigPlace<'_>) -> Result<Self, Error> {
        let mut tls = Self::default();
        if let Some(file) = &config.ca_file {
            let read = read("ca_file", file, place)?;
            let wrong = || read.wrong(place, "no certificates in PEM (`-----BEGIN CERTIFICATE-----`)");
            let authorities = Certificate::from_pem_bundle(&read.bytes).map_err(|_| wrong())?;
            // Whether they are certificates is seen only by who uses them.
            let client = ClientBuilder::new().no_proxy().tls_certs_only(authorities.clone()).build();
            if authorities.is_empty() || client.is_err() {
                return Err(wrong());
            }
            tls.authorities = authorities;
        }
        match (&config.client_cert, &config.client_key) {
            (None, None) => {}
            (None, Some(_)) => {
                return Err(place.wrong("client_key", "it is the key of a certificate, and there is no `client_cert`"));
            }
            (Some(cert), key) => {
                let mut pem = read("client_cert", cert, place)?;
                let mut what = "no certificate and key in PEM: name the file of the key in `client_key`, or put both into this one";
                if let Some(key) = key {
                    let key = read("client_key", key, place)?;
                    pem.bytes.push(b'\n');
                    pem.bytes.extend(key.bytes);
                    what = "no certificate in PEM, or the file of `client_key` has no key in PEM (without a password)";
                }
                let identity = Identity::from_pem(&pem.bytes).map_err(|_| pem.wrong(place, what))?;
                // Whether they fit is seen only by who uses them.
                let client = ClientBuilder::new().no_proxy().identity(identity.clone()).build();
                client.map_err(|_| pem.wrong(place, "a certificate that does not belong to the key"))?;
                tls.identity = Some(identity);
            }
        }
        Ok(tls)
    }

    pub(super) fn apply(&self, client: ClientBuilder) -> ClientBuilder {
        let client =
            if self.authorities.is_empty() { client } else { client.tls_certs_merge(self.authorities.clone()) };
        match &self.identity {
            Some(identity) => client.identity(identity.clone()),
            None => client,
        }
    }
}

/// A file that was read, and the key that named it.
struct Pem {
    key: &'static str,
    file: String,
    bytes: Vec<u8>,
}

impl Pem {
    fn wrong(&self, place: &ConfigPlace<'_>, what: &str) -> Error {
        place.wrong(self.key, format!("the file `{}` has {what}", self.file))
    }
}

fn read(key: &'static str, file: &str, place: &ConfigPlace<'_>) -> Result<Pem, Error> {
    // What it names may be a secret, so the message has it as it is written in the configuration.
    let failed = |error| place.wrong(key, format!("can't read the file `{file}`: {error}"));
    let bytes = files::read(&place.path(key, Path::new(file))?, FILE_BYTES).map_err(failed)?;
    Ok(Pem { key, file: file.into(), bytes })
}
