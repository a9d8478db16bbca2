//! Private authorities and certificates of clients: servers over HTTP and WebSocket whose TLS needs them, and entries that name them wrongly.

use std::path::Path;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::fault_server::FaultServer;
use crate::fixtures;
use crate::support::{Ignored, builder, client, need, run, test, value};

pub fn tests() -> Vec<Trial> {
    vec![
        test("certificates::of_private_authorities_and_of_clients", private),
        test("certificates::files_that_can_not_be_used_are_named", unusable),
    ]
}

/// Makes authorities and certificates in a folder, and speaks TLS at two ports, of which the second wants a certificate of the client; hands
/// all on to the port it is given.
const TLS: &str = r#"
import datetime, os, socket, ssl, sys, threading
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

port, folder = int(sys.argv[1]), sys.argv[2]
now = datetime.datetime.now(datetime.timezone.utc)

def certificate(name, issuer=None, names=()):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    by, signs = issuer or (subject, key)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(by).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
    made = builder.sign(signs, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return (subject, key), made, private

def write(name, *parts):
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(b"".join(parts))
    return path

authority, ca, _ = certificate("authority")
write("ca.pem", ca)
_, other, other_key = certificate("other")
write("other.pem", other)
write("other.key", other_key)
_, made, private = certificate("client", authority)
write("client.pem", made)
write("client.key", private)
write("both.pem", private, made)
_, made, private = certificate("localhost", authority, ["localhost"])
server = write("server.pem", private, made)

def hand_on(source, target):
    try:
        while part := source.recv(65536):
            target.sendall(part)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass

def serve(context, client):
    try:
        client = context.wrap_socket(client, server_side=True)
        upstream = socket.create_connection(("127.0.0.1", port))
    except OSError:
        return
    threading.Thread(target=hand_on, args=(upstream, client), daemon=True).start()
    hand_on(client, upstream)

def listen(context, listener):
    while True:
        threading.Thread(target=serve, args=(context, listener.accept()[0]), daemon=True).start()

for wants in [ssl.CERT_NONE, ssl.CERT_REQUIRED]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server)
    context.load_verify_locations(os.path.join(folder, "ca.pem"))
    context.verify_mode = wants
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=listen, args=(context, listener)).start()
"#;

/// The entry of the server at a port that speaks TLS, with further keys.
fn entry(server: &FaultServer, transport: &str, port: &str, keys: &Value) -> Value {
    let mut entry = server.entry(transport);
    let key = if transport == "ws" { "ws_url" } else { "url" };
    let url = entry[key].as_str().unwrap().to_string();
    let (scheme, path) = (url.split("://").next().unwrap(), url.rsplit('/').next().unwrap());
    entry[key] = json!(format!("{scheme}s://localhost:{port}/{path}"));
    entry.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    entry
}

async fn private() -> Result<(), Ignored> {
    let python = need(fixtures::python_sdk())?;
    let server = FaultServer::start("none").await;
    let folder = tempfile::tempdir().unwrap();
    let mut tls = tokio::process::Command::new(&python.program)
        .args(["-c", TLS, &server.port()])
        .arg(folder.path())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut ports = BufReader::new(tls.stdout.take().unwrap()).lines();
    let (open, wants) = (ports.next_line().await.unwrap().unwrap(), ports.next_line().await.unwrap().unwrap());
    let file = |name: &str| folder.path().join(name);
    let ca = file("ca.pem");
    let accepted = [
        (&open, json!({"ca_file": "${FOLDER}/ca.pem"})),
        (&open, json!({"ca_file": ca, "client_cert": file("both.pem")})),
        (&wants, json!({"ca_file": ca, "client_cert": "${FOLDER}/client.pem", "client_key": "${FOLDER}/client.key"})),
        (&wants, json!({"ca_file": ca, "client_cert": file("both.pem")})),
    ];
    let refused = [
        (&open, json!({})),
        (&open, json!({"ca_file": file("other.pem")})),
        (&wants, json!({"ca_file": ca})),
        (&wants, json!({"ca_file": ca, "client_cert": file("other.pem"), "client_key": file("other.key")})),
    ];
    let of = |servers: Value| {
        let place = folder.path().display().to_string();
        builder(servers).variables(move |name| (name == "FOLDER").then(|| place.clone())).build().unwrap()
    };
    for transport in ["http", "sse", "older", "ws"] {
        for (port, keys) in &accepted {
            let client = of(json!({"it": entry(&server, transport, port, keys)}));
            assert_eq!(value(run(&client, "it.fault()").await), json!("fine"), "{transport}: {keys}");
            client.close_all_sessions().await;
        }
        for (port, keys) in &refused {
            let client = of(json!({"it": entry(&server, transport, port, keys)}));
            let error = client.create_session("it").await.unwrap_err();
            assert!(error.is_connection(), "{transport}: {keys}: {error}");
            client.close_all_sessions().await;
        }
    }
    // A key that is another certificate's.
    let keys = json!({"ca_file": ca, "client_cert": file("client.pem"), "client_key": file("other.key")});
    let error = of(json!({"it": entry(&server, "http", &wants, &keys)})).create_session("it").await.unwrap_err();
    let error = error.to_string();
    assert!(error.contains("mcpServers.it.client_cert: ") && error.contains("client.pem"), "{error}");
    Ok(())
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

async fn unusable() -> Result<(), Ignored> {
    let folder = tempfile::tempdir().unwrap();
    let text = write(folder.path(), "text", "SECRET words");
    let broken = "-----BEGIN CERTIFICATE-----\nSECRET\n-----END CERTIFICATE-----\n";
    let broken = write(folder.path(), "broken", broken);
    let empty = write(folder.path(), "empty", "");
    let large = write(folder.path(), "large", &"SECRET".repeat(1 << 20));
    let missing = folder.path().join("missing").display().to_string();
    let directory = folder.path().display().to_string();
    let mut cases = Vec::new();
    for key in ["ca_file", "client_cert"] {
        for file in [&text, &broken, &empty, &large, &missing, &directory] {
            cases.push((json!({key: file}), key, file.clone()));
        }
    }
    cases.push((json!({"client_cert": missing, "client_key": missing}), "client_cert", missing.clone()));
    cases.push((json!({"client_cert": broken, "client_key": missing}), "client_key", missing.clone()));
    cases.push((json!({"client_key": text}), "client_key", "client_cert".into()));
    cases.push((json!({"ca_file": "${NOT_SET}/ca.pem"}), "ca_file", "NOT_SET".into()));
    for (keys, key, named) in cases {
        for url in ["url", "ws_url"] {
            let mut entry = json!({url: if url == "url" { "https://localhost:1/mcp" } else { "wss://localhost:1" }});
            entry.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
            let error = client(json!({"it": entry})).create_session("it").await.unwrap_err();
            assert!(error.is_config(), "{keys}: {error}");
            let error = error.to_string();
            assert!(error.contains(&format!("mcpServers.it.{key}: ")) && error.contains(&named), "{keys}: {error}");
            assert!(!error.contains("SECRET"), "{keys}: {error}");
        }
    }
    Ok(())
}
