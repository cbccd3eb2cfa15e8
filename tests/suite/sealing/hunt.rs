//! The hunt for unlock keys, where none may be.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::{Rig, forged};

pub(super) fn the_unlock_key_is_in_no_file_no_argument_and_no_log() {
    let mut rig = Rig::new(&["--shares", "3", "--threshold", "2", "--auto-unlock", "systemd-credential"]);
    let shares = rig.manager.shares();
    let credential = rig.manager.printed()["credential_unlock_key"].as_str().expect("a key").to_owned();
    let mut hunted: Vec<_> = shares.iter().flat_map(|share| traces(share)).collect();
    hunted.extend(traces(&credential));

    rig.manager.run_sealed();
    rig.unlock(&forged(&shares[0]));
    rig.unlock(&shares[1]);
    rig.unlock(&shares[0]);
    nowhere(&rig, &hunted);
    assert_eq!(rig.unlock(&shares[2]).code, 0);
    rig.manager.operator().ok(&["env", "create", "prod"]);
    nowhere(&rig, &hunted);
    rig.manager.stop();

    // The hunt finds what a key file says.
    let rekeyed =
        rig.manager.command(&["rekey", "--auto-unlock", "key-file"], shares[1..].join("\n").as_bytes());
    assert_eq!(rekeyed.code, 0, "{rekeyed:?}");
    let planted = traces(&fs::read_to_string(rig.file("unlock.key")).expect("a key file"));
    assert!(!found_in(rig.manager.data(), &planted).is_empty());
}

/// By what a key or a share is recognised: its text, and its bytes as they are and in two encodings.
fn traces(text: &str) -> Vec<Vec<u8>> {
    let encoded = &text.trim()[5..];
    let bytes = URL_SAFE_NO_PAD.decode(encoded).expect("base64");
    // A share begins with what is no secret: its set, the threshold, its number.
    let secret = if text.starts_with("sfs1.") { &bytes[6..38] } else { &bytes[..32] };
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let encoded_part = &encoded.as_bytes()[8..40];
    vec![encoded_part.to_vec(), secret[..16].to_vec(), secret[16..].to_vec(), hex[..32].into(), {
        STANDARD.encode(secret).as_bytes()[..40].to_vec()
    }]
}

fn nowhere(rig: &Rig, hunted: &[Vec<u8>]) {
    assert_eq!(found_in(rig.manager.data(), hunted), [""; 0]);
    let pid = rig.manager.process().pid();
    for file in ["cmdline", "environ"] {
        let content = fs::read(format!("/proc/{pid}/{file}")).expect(file);
        assert!(!has_any(&content, hunted), "in {file}");
    }
    assert!(!has_any(rig.manager.process().log().as_bytes(), hunted), "in the log");
}

/// The files in and below a directory that have any of this.
fn found_in(directory: &Path, hunted: &[Vec<u8>]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        let (path, kind) = (entry.path(), entry.file_type().expect("a type"));
        if kind.is_dir() {
            found.extend(found_in(&path, hunted));
        } else if !kind.is_socket() && has_any(&fs::read(&path).expect("a file"), hunted) {
            found.push(path.display().to_string());
        }
    }
    found
}

fn has_any(content: &[u8], hunted: &[Vec<u8>]) -> bool {
    hunted.iter().any(|trace| content.windows(trace.len()).any(|window| window == trace))
}
