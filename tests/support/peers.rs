//! Third-party programs that some tests need: the Python and JavaScript SDKs, Azurite, and a MongoDB server.
//!
//! `scripts/install-test-peers.sh` installs them. A test that does not find them prints a notice and passes. With
//! `COSMOS_REWIND_REQUIRE_OPTIONAL=1`, which CI sets, it fails.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use base64::Engine as _;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// Azurite's default account; Microsoft publishes its key, so it is not a secret.
/// <https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-peers")
}

/// Returns the path if it is installed. Otherwise prints a notice, or fails where everything is required.
fn installed(what: &str, path: PathBuf) -> Option<PathBuf> {
    // The script writes this file when everything is installed and starts.
    if path.exists() && peers().join("installed").is_file() {
        return Some(path);
    }
    absent(&format!("{what} is not installed; scripts/install-test-peers.sh does that"));
    None
}

/// Reports that a test is skipped and why; fails where everything is required.
pub fn absent(notice: &str) {
    let required = std::env::var("COSMOS_REWIND_REQUIRE_OPTIONAL").is_ok_and(|value| value == "1");
    assert!(!required, "{notice}");
    // eprintln would be captured: the output of a passing test is not shown.
    let thread = std::thread::current();
    let _ = writeln!(std::io::stderr(), "SKIPPED: {}: {notice}", thread.name().unwrap_or("a test"));
}

/// The Python with `azure-cosmos`.
pub fn python() -> Option<PathBuf> {
    installed("the Python SDK", peers().join("venv/bin/python"))
}

/// The Python with SecantusDB, a MongoDB server, and `pymongo`.
#[cfg(feature = "mongodb")]
pub fn mongodb_python() -> Option<PathBuf> {
    let bin = peers().join("venv/bin");
    installed("SecantusDB", bin.join("secantusd-py")).map(|_| bin.join("python"))
}

/// The folder from which node finds `@azure/cosmos`.
pub fn node_folder() -> Option<PathBuf> {
    let folder = peers().join("node");
    installed("the JavaScript SDK", folder.join("node_modules/@azure/cosmos")).map(|_| folder)
}

/// A blob store on this machine; stops on drop.
pub struct Azurite {
    child: Child,
    endpoint: String,
}

impl Azurite {
    /// Starts Azurite on a free port, with in-memory storage.
    pub fn start() -> Option<Self> {
        let program = installed("Azurite", peers().join("node/node_modules/azurite/dist/src/blob/main.js"))?;
        let folder = peers().join("node");
        let mut child = Command::new("node")
            .arg(program)
            .args([
                "--blobPort",
                "0",
                "--inMemoryPersistence",
                "--skipApiVersionCheck",
                "--disableTelemetry",
                "--silent",
            ])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the script checked that node is installed");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let endpoint = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("listens on ")?.1.trim().to_owned()));
        // Keep reading, or the process would block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let endpoint = format!("{}/{ACCOUNT}", endpoint.expect("azurite says where it listens"));
        Some(Self { child, endpoint })
    }

    /// A container URL with a SAS for everything that the dead-letter store does.
    pub fn container(&self, name: &str) -> String {
        format!("{}/{name}?{}", self.endpoint, account_sas("co", "rwdlc"))
    }

    /// The same container with a read-only SAS.
    pub fn read_only(&self, name: &str) -> String {
        format!("{}/{name}?{}", self.endpoint, account_sas("co", "r"))
    }

    pub async fn create(&self, name: &str) {
        let http = super::http_client();
        let url = format!("{}&restype=container", self.container(name));
        let answer =
            http.put(url).header("content-length", "0").header("x-ms-version", "2021-12-02").send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 201, "{}", answer.text().await.unwrap());
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An account SAS for blobs, in the form of version 2019-12-12.
/// <https://learn.microsoft.com/rest/api/storageservices/create-account-sas>
fn account_sas(resource_types: &str, permissions: &str) -> String {
    let (version, expiry, protocols) = ("2019-12-12", "2099-01-01T00:00:00Z", "https,http");
    let text = format!("{ACCOUNT}\n{permissions}\nb\n{resource_types}\n\n{expiry}\n\n{protocols}\n{version}\n");
    let base64 = base64::engine::general_purpose::STANDARD;
    let mut mac = Hmac::<Sha256>::new_from_slice(&base64.decode(KEY).unwrap()).unwrap();
    mac.update(text.as_bytes());
    let signature = base64.encode(mac.finalize().into_bytes());
    let pairs = [
        ("sv", version),
        ("ss", "b"),
        ("srt", resource_types),
        ("sp", permissions),
        ("se", expiry),
        ("spr", protocols),
        ("sig", &signature),
    ];
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// The signature of a URL in every form in which it could leak.
pub fn signatures(url: &str) -> [String; 2] {
    let url = url::Url::parse(url).unwrap();
    let plain = url.query_pairs().find(|(name, _)| name == "sig").unwrap().1.into_owned();
    let encoded = url.query().unwrap().split_once("sig=").unwrap().1.to_owned();
    [plain, encoded]
}
