//! Gates, and the evidence that they leave: an in-toto statement in a DSSE envelope, signed by the agent that ran the gate.
//!
//! Formats: DSSE v1 (<https://github.com/secure-systems-lab/dsse>), in-toto Statement v1, predicate
//! `https://lockgate.dev/attestation/gate/v1`. Signatures are ECDSA P-256 over SHA-256, DER-encoded.

use crate::clock::Millis;
use crate::digest::{Digest, NotCanonical, canonical_json};
use crate::id::{EnvironmentName, GateName, PromotionId};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::pkcs8::{DecodePublicKey as _, EncodePublicKey as _, LineEnding};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a gate checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum GateSpec {
    /// A program in a clean checkout of the release's code; its exit code is the verdict.
    Command {
        /// The command line, run by `sh -c`.
        run: String,
        /// How long it may take, in milliseconds.
        timeout_ms: u64,
    },
    /// The environment's dataset fits the release's feature schema.
    Data {
        /// The dataset's name in the environment.
        data: String,
    },
    /// A number computed from the release's predictions on the environment's dataset.
    Metric {
        /// Which number.
        metric: Metric,
        /// The dataset's name in the environment.
        data: String,
        /// Smallest value that passes.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        min: Option<f64>,
        /// Largest value that passes.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        max: Option<f64>,
        /// Compare with what another environment serves now, on the same rows.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        versus: Option<Versus>,
    },
    /// Recorded rows through the serving path equal the offline predictions.
    Parity {
        /// Largest absolute difference that passes.
        atol: f64,
    },
    /// Load on a real worker.
    Benchmark {
        /// Requests per second that it must sustain.
        rps: f64,
        /// Largest 99th percentile of latency, in milliseconds.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        p99_ms: Option<f64>,
        /// How long, in milliseconds.
        duration_ms: u64,
    },
    /// Recorded requests must all be answered, with finite numbers.
    Replay {
        /// The dataset of requests in the environment (one Open Inference body a line); without it the environment's own
        /// prediction log is replayed.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        data: Option<String>,
        /// How many requests at the most.
        limit: u64,
    },
}

impl GateSpec {
    /// The word for the kind, as in `lockgate.toml`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Command { .. } => "command",
            Self::Data { .. } => "data",
            Self::Metric { .. } => "metric",
            Self::Parity { .. } => "parity",
            Self::Benchmark { .. } => "benchmark",
            Self::Replay { .. } => "replay",
        }
    }

    /// What the gate asks, whatever another environment serves at the time.
    #[must_use]
    pub fn question(&self) -> Self {
        let mut question = self.clone();
        if let Self::Metric { versus: Some(versus), .. } = &mut question {
            versus.release = None;
        }
        question
    }

    /// The question as an input of the gate's finding, so that its signer says what was asked.
    ///
    /// # Errors
    /// Where a number in it is not finite.
    pub fn as_input(&self) -> Result<Input, NotCanonical> {
        Ok(Input { name: "gate".to_owned(), digest: Digest::of_json(&self.question())? })
    }
}

/// A comparison with another environment's baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Versus {
    /// Whose baseline. Where that environment serves nothing yet there is nothing to compare with, and the gate says so.
    pub environment: EnvironmentName,
    /// How much worse the release may be, in the metric's own unit.
    pub max_loss: f64,
    /// What the other environment serves; filled in by the plan.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub release: Option<Digest>,
}

/// The metrics that a gate can compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Area under the ROC curve (binary).
    RocAuc,
    /// Expected calibration error over ten equal-width bins (binary).
    Ece,
    /// Mean squared difference between probability and label (binary).
    Brier,
    /// Mean negative log likelihood (binary).
    LogLoss,
    /// Share of right labels at a threshold of 0.5 (binary) or by the largest score (multiclass).
    Accuracy,
    /// Harmonic mean of precision and recall at 0.5 (binary).
    F1,
    /// Root of the mean squared error (regression).
    Rmse,
    /// Mean absolute error (regression).
    Mae,
    /// Coefficient of determination (regression).
    R2,
}

impl Metric {
    /// All metrics with their names in `lockgate.toml`.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::RocAuc, "roc_auc"),
        (Self::Ece, "ece"),
        (Self::Brier, "brier"),
        (Self::LogLoss, "log_loss"),
        (Self::Accuracy, "accuracy"),
        (Self::F1, "f1"),
        (Self::Rmse, "rmse"),
        (Self::Mae, "mae"),
        (Self::R2, "r2"),
    ];

    /// The name in `lockgate.toml`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(m, _)| *m == self).map_or("metric", |(_, name)| name)
    }

    /// Whether a larger value is better.
    #[must_use]
    pub fn larger_is_better(self) -> bool {
        matches!(self, Self::RocAuc | Self::Accuracy | Self::F1 | Self::R2)
    }
}

/// How a gate ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The release meets the gate.
    Pass,
    /// It doesn't.
    Fail,
    /// The gate could not be carried out: never a pass.
    Error,
}

/// One input of a gate, by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// What it is.
    pub name: String,
    /// SHA-256 of its bytes.
    pub digest: Digest,
}

/// What a gate found: the predicate of the attestation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The gate's name.
    pub gate: GateName,
    /// Its kind.
    pub kind: String,
    /// The environment whose agent ran it.
    pub environment: EnvironmentName,
    /// The promotion that asked for it.
    pub promotion: PromotionId,
    /// The plan that the promotion is bound to.
    pub plan_hash: Digest,
    /// How it ended.
    pub result: Outcome,
    /// One sentence with the numbers.
    pub summary: String,
    /// The numbers. A value that is not finite is left out, and then the result is no pass.
    pub measured: BTreeMap<String, f64>,
    /// Digests of everything that was read: gate configuration, data, baseline.
    pub inputs: Vec<Input>,
    /// Digest of the log.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log: Option<Digest>,
    /// When it began.
    pub started: Millis,
    /// When it ended.
    pub finished: Millis,
}

impl Finding {
    /// Whether it is an answer to what `spec` asks, and not to what a gate of the same name asked once.
    #[must_use]
    pub fn answers(&self, spec: &GateSpec) -> bool {
        spec.as_input().is_ok_and(|asked| self.inputs.contains(&asked))
    }
}

/// An in-toto statement about one release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Finding,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Subject {
    name: String,
    digest: BTreeMap<String, String>,
}

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://lockgate.dev/attestation/gate/v1";
const PAYLOAD: &str = "application/vnd.in-toto+json";

/// A signed envelope (DSSE).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct EnvelopeSignature {
    keyid: String,
    sig: String,
}

/// Why an envelope proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEvidence {
    /// The signature isn't by the expected key.
    #[error("the evidence is not signed by the key of environment `{0}`")]
    Signature(String),
    /// The envelope or statement can't be read.
    #[error("the evidence can't be read: {0}")]
    Malformed(String),
    /// It speaks of another release.
    #[error("the evidence is about release {found}, not about {expected}")]
    OtherRelease {
        /// What it speaks of.
        found: String,
        /// What it should speak of.
        expected: Digest,
    },
    /// It speaks of another environment.
    #[error("the evidence was made in environment `{found}`, not in `{expected}`")]
    OtherEnvironment {
        /// Where it was made.
        found: EnvironmentName,
        /// Where it should have been made.
        expected: EnvironmentName,
    },
}

/// An agent's public key, as PEM (SPKI).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicKey(String);

impl PublicKey {
    /// The public half of `key`.
    ///
    /// # Errors
    /// Where the key can't be encoded, which the curve's arithmetic rules out.
    pub fn of(key: &SigningKey) -> Result<Self, BadEvidence> {
        key.verifying_key()
            .to_public_key_pem(LineEnding::LF)
            .map(Self)
            .map_err(|e| BadEvidence::Malformed(e.to_string()))
    }

    /// Checks `pem` and wraps it.
    ///
    /// # Errors
    /// Where it is no P-256 public key in PEM form.
    pub fn from_pem(pem: &str) -> Result<Self, BadEvidence> {
        VerifyingKey::from_public_key_pem(pem)
            .map(|_| Self(pem.to_owned()))
            .map_err(|e| BadEvidence::Malformed(format!("no P-256 public key: {e}")))
    }

    /// The PEM text.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.0
    }

    /// The key's short name: SHA-256 of its PEM text.
    #[must_use]
    pub fn id(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }
}

/// DSSE's pre-authentication encoding.
fn pae(kind: &str, body: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {kind} {} ", kind.len(), body.len()).into_bytes();
    out.extend_from_slice(body);
    out
}

/// Signs what a gate found about `release`.
///
/// # Errors
/// Where a measured number is not finite.
pub fn sign(key: &SigningKey, release: &Digest, finding: Finding) -> Result<Envelope, NotCanonical> {
    // JSON has no such number; written as null it would make evidence that nobody can read.
    if let Some((name, value)) = finding.measured.iter().find(|(_, v)| !v.is_finite()) {
        return Err(NotCanonical(format!("`{name}` is {value}")));
    }
    let statement = Statement {
        kind: STATEMENT.to_owned(),
        subject: vec![Subject {
            name: format!("lockgate://releases/{}", release.short()),
            digest: BTreeMap::from([("sha256".to_owned(), release.hex())]),
        }],
        predicate_type: PREDICATE.to_owned(),
        predicate: finding,
    };
    let body = canonical_json(&statement)?;
    let signature: Signature = key.sign(&pae(PAYLOAD, body.as_bytes()));
    let keyid = PublicKey::of(key).map(|k| k.id().hex()).unwrap_or_default();
    Ok(Envelope {
        payload_type: PAYLOAD.to_owned(),
        payload: BASE64.encode(body),
        signatures: vec![EnvelopeSignature { keyid, sig: BASE64.encode(signature.to_der()) }],
    })
}

impl Envelope {
    /// Digest of the envelope's canonical JSON: what an approval is bound to.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_parts(&[self.payload_type.as_bytes(), b"\n", self.payload.as_bytes()])
    }

    /// What the statement says, without asking who signed it: for display beside evidence that was verified when it came in,
    /// never to decide from.
    #[must_use]
    pub fn finding_unverified(&self) -> Option<Finding> {
        let body = BASE64.decode(&self.payload).ok()?;
        serde_json::from_slice::<Statement>(&body).ok().map(|s| s.predicate)
    }

    /// Verifies the signature with `key` and that the statement speaks of `release` in `environment`.
    ///
    /// # Errors
    /// Where anything doesn't fit: nothing is proven then.
    pub fn verify(
        &self,
        key: &PublicKey,
        environment: &EnvironmentName,
        release: &Digest,
    ) -> Result<Finding, BadEvidence> {
        let malformed = |what: &str| BadEvidence::Malformed(what.to_owned());
        if self.payload_type != PAYLOAD {
            return Err(malformed("the payload is no in-toto statement"));
        }
        let body = BASE64.decode(&self.payload).map_err(|_| malformed("the payload is no base64"))?;
        let verifier = VerifyingKey::from_public_key_pem(key.pem())
            .map_err(|_| BadEvidence::Signature(environment.to_string()))?;
        let message = pae(&self.payload_type, &body);
        let signed = self.signatures.iter().any(|s| {
            BASE64
                .decode(&s.sig)
                .ok()
                .and_then(|der| Signature::from_der(&der).ok())
                .is_some_and(|signature| verifier.verify(&message, &signature).is_ok())
        });
        if !signed {
            return Err(BadEvidence::Signature(environment.to_string()));
        }
        let statement: Statement =
            serde_json::from_slice(&body).map_err(|e| BadEvidence::Malformed(e.to_string()))?;
        if statement.kind != STATEMENT || statement.predicate_type != PREDICATE {
            return Err(malformed("the statement is no gate attestation"));
        }
        let [subject] = statement.subject.as_slice() else {
            return Err(malformed("the statement must name exactly one release"));
        };
        if subject.digest.get("sha256") != Some(&release.hex()) {
            let found = subject.digest.get("sha256").cloned().unwrap_or_default();
            return Err(BadEvidence::OtherRelease { found, expected: *release });
        }
        if statement.predicate.environment != *environment {
            return Err(BadEvidence::OtherEnvironment {
                found: statement.predicate.environment,
                expected: environment.clone(),
            });
        }
        Ok(statement.predicate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Entropy;

    struct Fixed;
    impl Entropy for Fixed {
        fn fill(&self, buf: &mut [u8]) {
            buf.fill(9);
        }
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_slice(&[seed; 32]).unwrap()
    }

    fn finding(environment: &str) -> Finding {
        Finding {
            gate: GateName::new("quality").unwrap(),
            kind: "metric".to_owned(),
            environment: EnvironmentName::new(environment).unwrap(),
            promotion: PromotionId::generate(0, &Fixed),
            plan_hash: Digest::of(b"plan"),
            result: Outcome::Pass,
            summary: "roc_auc 0.71 >= 0.7".to_owned(),
            measured: BTreeMap::from([("roc_auc".to_owned(), 0.71)]),
            inputs: vec![],
            log: None,
            started: 1,
            finished: 2,
        }
    }

    #[test]
    fn evidence_proves_only_what_its_signer_said_about_one_release_in_one_environment() {
        let (release, other) = (Digest::of(b"release"), Digest::of(b"other"));
        let testing = EnvironmentName::new("testing").unwrap();
        let envelope = sign(&key(1), &release, finding("testing")).unwrap();
        let public = PublicKey::of(&key(1)).unwrap();
        assert_eq!(envelope.verify(&public, &testing, &release).unwrap().result, Outcome::Pass);

        let wrong_key = PublicKey::of(&key(2)).unwrap();
        assert!(matches!(envelope.verify(&wrong_key, &testing, &release), Err(BadEvidence::Signature(_))));
        assert!(matches!(envelope.verify(&public, &testing, &other), Err(BadEvidence::OtherRelease { .. })));
        let staging = EnvironmentName::new("staging").unwrap();
        assert!(matches!(
            envelope.verify(&public, &staging, &release),
            Err(BadEvidence::OtherEnvironment { .. })
        ));

        let mut forged = envelope.clone();
        let body = String::from_utf8(BASE64.decode(&forged.payload).unwrap()).unwrap();
        forged.payload = BASE64.encode(body.replace("0.71", "0.99"));
        assert!(matches!(forged.verify(&public, &testing, &release), Err(BadEvidence::Signature(_))));
        let mut unsigned = envelope;
        unsigned.signatures.clear();
        assert!(matches!(unsigned.verify(&public, &testing, &release), Err(BadEvidence::Signature(_))));
    }

    #[test]
    fn a_number_that_is_not_finite_can_not_be_signed() {
        let mut nan = finding("testing");
        nan.measured.insert("roc_auc".to_owned(), f64::NAN);
        assert!(sign(&key(1), &Digest::of(b"r"), nan).is_err());
    }
}
