//! Tokens that are bound to a key of this client (`DPoP`, RFC 9449): proofs of having it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Url;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Problem;
use super::tokens::now;

pub(super) const PROOF: HeaderName = HeaderName::from_static("dpop");
const NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
/// The error with which a server asks for a proof with its nonce.
pub(super) const USE_NONCE: &str = "use_dpop_nonce";
/// Servers whose nonces are remembered: the MCP server and its authorisation servers.
const ORIGINS: usize = 16;

/// A key of this client.
pub(super) struct Key {
    private: Vec<u8>,
    signing: EncodingKey,
    public: Jwk,
}

#[derive(Serialize)]
struct Claims<'a> {
    jti: String,
    htm: &'a str,
    htu: &'a str,
    iat: u64,
    /// What it is a proof for: a digest of the access token.
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
}

impl Key {
    /// A new one.
    pub(super) fn generate() -> Result<Self, Problem> {
        let private = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| Problem::failed("no key for DPoP can be made"))?;
        Self::new(private.as_ref().to_vec())
    }

    /// From what [`Key::to_text`] gave.
    pub(super) fn from_text(text: &str) -> Result<Self, Problem> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let private = text.as_bytes().chunks(2).map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        });
        Self::new(private.collect::<Option<_>>().ok_or_else(unusable)?)
    }

    fn new(private: Vec<u8>) -> Result<Self, Problem> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &private).map_err(|_| unusable())?;
        let signing = EncodingKey::from_ec_der(&private);
        let public = Jwk::from_encoding_key(&signing, Algorithm::ES256).map_err(|_| unusable())?;
        Ok(Self { private, signing, public })
    }

    /// The private key, to be kept.
    pub(super) fn to_text(&self) -> String {
        let digit = |digit: u8| char::from_digit(u32::from(digit), 16).unwrap_or_default();
        self.private.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }

    /// A proof for one request, and the access token that goes with it.
    pub(super) fn proof(
        &self,
        method: &Method,
        url: &Url,
        token: Option<&str>,
        nonces: &Nonces,
    ) -> Result<HeaderValue, Problem> {
        let mut target = url.clone();
        target.set_query(None);
        target.set_fragment(None);
        let claims = Claims {
            jti: random_text()?,
            htm: method.as_str(),
            htu: target.as_str(),
            iat: now(),
            ath: token.map(|token| base64url(&Sha256::digest(token))),
            nonce: nonces.of(url),
        };
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some("dpop+jwt".into());
        header.jwk = Some(self.public.clone());
        let proof = jsonwebtoken::encode(&header, &claims, &self.signing).map_err(|_| unusable())?;
        HeaderValue::from_str(&proof).map_err(|_| unusable())
    }
}

fn unusable() -> Problem {
    Problem::failed("the key for DPoP can't be used")
}

/// The nonces that servers want in proofs, by origin.
#[derive(Default)]
pub(super) struct Nonces(Mutex<HashMap<String, String>>);

impl Nonces {
    fn of(&self, url: &Url) -> Option<String> {
        let nonces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        nonces.get(&url.origin().ascii_serialization()).cloned()
    }

    /// Notes the nonce of an answer, if it has one.
    pub(super) fn remember(&self, url: &Url, headers: &HeaderMap) {
        let Some(nonce) = headers.get(NONCE).and_then(|nonce| nonce.to_str().ok()) else { return };
        let mut nonces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if nonces.len() >= ORIGINS {
            nonces.clear();
        }
        nonces.insert(url.origin().ascii_serialization(), nonce.into());
    }
}

/// What nobody else has.
pub(super) fn random_text() -> Result<String, Problem> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| Problem::failed("there are no random numbers"))?;
    Ok(base64url(&bytes))
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[bits >> (18 - 6 * digit) & 63]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::jwk::ThumbprintHash;
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_key_that_was_kept_is_the_same() {
        let key = Key::generate().unwrap();
        let kept = Key::from_text(&key.to_text()).unwrap();
        let thumbprint = |key: &Key| key.public.thumbprint(ThumbprintHash::SHA256).unwrap();
        assert_eq!(thumbprint(&key), thumbprint(&kept));
        for text in ["", "0", "zz", "00ff"] {
            assert!(Key::from_text(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_proof_is_for_one_request() {
        let (key, nonces) = (Key::generate().unwrap(), Nonces::default());
        let url = Url::parse("https://example.com/mcp?secret=1#here").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(NONCE, HeaderValue::from_static("the-nonce"));
        nonces.remember(&url, &headers);
        let proof = key.proof(&Method::POST, &url, Some("token"), &nonces).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        let decoded = jsonwebtoken::decode::<Value>(
            proof.to_str().unwrap(),
            &DecodingKey::from_jwk(&key.public).unwrap(),
            &validation,
        );
        let claims = decoded.unwrap().claims;
        assert_eq!(claims["htu"], "https://example.com/mcp");
        assert_eq!((&claims["htm"], &claims["nonce"]), (&Value::from("POST"), &Value::from("the-nonce")));
        // SHA-256 of `token`, as RFC 4648 writes it for addresses.
        assert_eq!(claims["ath"], "PEaenWxYddN6Q_NT1PiOYfz4EsZu7jRXRlpAsNpBU-A");
    }
}
