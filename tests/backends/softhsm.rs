//! A real SoftHSM: an HSM in a library, with its tokens in a directory.
//!
//! SoftHSM finds its tokens by the environment variable `SOFTHSM2_CONF`, which it reads in the process
//! that loads it. Each [`SoftHsm`] has a configuration of its own, so tests do not see each other's
//! tokens. A program that is started gets the variable ([`SoftHsm::environment`]). A test that loads
//! the library itself cannot set a variable of its own process while other tests run, and PKCS #11
//! keeps one state for the whole process in any case: [`in_own_process`] runs such a test by itself.

use std::any;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::process::{Process, bound_command};
use super::random_text;
use super::requirement::{Missing, available, program};

/// The variable by which SoftHSM finds its configuration.
pub(crate) const CONFIGURATION_VARIABLE: &str = "SOFTHSM2_CONF";

/// Set in a process of a test's own: where its SoftHSM is.
const DIRECTORY_VARIABLE: &str = "SECRETFS_TEST_SOFTHSM";

const LABEL: &str = "secretfs";

/// Where distributions have the library.
const MODULES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// An HSM with one token. Gone with all its tokens when it is dropped.
pub(crate) struct SoftHsm {
    module: PathBuf,
    util: PathBuf,
    directory: PathBuf,
    _owned: Option<TempDir>,
}

impl SoftHsm {
    /// What is missing, if something is.
    pub(crate) fn missing() -> Option<Missing> {
        util().and(module()).err()
    }

    /// Makes one with a token that is labelled `secretfs`.
    pub(crate) fn new() -> Result<Self, Missing> {
        let (util, module) = (util()?, module()?);
        let owned = tempfile::Builder::new().prefix("secretfs-softhsm-").tempdir();
        let owned = owned.expect("a temporary directory");
        let hsm = Self { module, util, directory: owned.path().to_owned(), _owned: Some(owned) };
        fs::create_dir(hsm.tokens()).expect("a directory");
        let configuration = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            hsm.tokens().display()
        );
        fs::write(hsm.configuration(), configuration).expect("a configuration");
        fs::write(hsm.pin_file(), random_text()).expect("a PIN file");
        fs::set_permissions(hsm.pin_file(), Permissions::from_mode(0o600)).expect("a PIN file");
        hsm.add_token(LABEL);
        Ok(hsm)
    }

    /// The PKCS #11 library.
    pub(crate) fn module(&self) -> &Path {
        &self.module
    }

    /// The label of the token that is there from the start.
    pub(crate) fn token_label(&self) -> &'static str {
        LABEL
    }

    /// The user's PIN of all tokens.
    pub(crate) fn pin(&self) -> String {
        fs::read_to_string(self.pin_file()).expect("the PIN file")
    }

    /// The PIN in a file that only its owner reads.
    pub(crate) fn pin_file(&self) -> PathBuf {
        self.directory.join("pin")
    }

    /// SoftHSM's configuration file.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.directory.join("softhsm2.conf")
    }

    /// The variable to set for a program that loads the library.
    pub(crate) fn environment(&self) -> (&'static str, PathBuf) {
        (CONFIGURATION_VARIABLE, self.configuration())
    }

    /// Adds one more token. A process that has loaded the library does not see it.
    pub(crate) fn add_token(&self, label: &str) {
        let (so_pin, pin) = (random_text(), self.pin());
        let pins = ["--so-pin", &so_pin, "--pin", &pin];
        self.run(&[&["--init-token", "--free", "--label", label], &pins[..]].concat());
    }

    /// Deletes a token with all its keys.
    pub(crate) fn delete_token(&self, label: &str) {
        self.run(&["--delete-token", "--token", label]);
    }

    /// The labels of all tokens.
    pub(crate) fn token_labels(&self) -> Vec<String> {
        let slots = self.run(&["--show-slots"]);
        let labels = slots.lines().filter_map(|line| line.trim().strip_prefix("Label:"));
        // There is always one more slot, with a token that has not been initialized.
        labels.map(str::trim).filter(|label| !label.is_empty()).map(str::to_owned).collect()
    }

    /// The directory that has all tokens.
    pub(crate) fn tokens(&self) -> PathBuf {
        self.directory.join("tokens")
    }

    fn run(&self, arguments: &[&str]) -> String {
        let (variable, configuration) = self.environment();
        let output = Command::new(&self.util).args(arguments).env(variable, configuration).output();
        let output = output.expect("softhsm2-util starts");
        let (stdout, stderr) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "softhsm2-util {arguments:?}: {stderr}");
        String::from_utf8_lossy(stdout).into_owned()
    }
}

/// Runs a unit test in a process of its own, where the library finds the token of the [`SoftHsm`] that
/// it is given. To be called by the test's function itself, whose name is found by the closure's:
///
/// ```ignore
/// #[test]
/// fn a_token_is_there() {
///     softhsm::in_own_process(|hsm| { ... });
/// }
/// ```
pub(crate) fn in_own_process<F: FnOnce(&SoftHsm)>(test: F) {
    if let Some(directory) = std::env::var_os(DIRECTORY_VARIABLE) {
        let (util, module) = (util().expect("it was there"), module().expect("it was there"));
        return test(&SoftHsm { module, util, directory: directory.into(), _owned: None });
    }
    let Some((hsm, mut command)) = available(SoftHsm::new().and_then(|hsm| {
        let this_program = std::env::current_exe().expect("this program");
        Ok((hsm, bound_command(&this_program)?))
    })) else {
        return;
    };
    let name = test_name(any::type_name::<F>());
    let (variable, configuration) = hsm.environment();
    command
        .args([name, "--exact", "--include-ignored", "--nocapture"])
        .env(variable, configuration)
        .env(DIRECTORY_VARIABLE, &hsm.directory);
    let mut process = Process::start(command, &hsm.directory.join("test.log"));
    let status = process.wait(&format!("{name} ends in its own process"));
    let log = process.log();
    // No test of this name would be a success as well.
    assert!(status.success() && log.contains("test result: ok. 1 passed"), "{name}: {status}\n{log}");
}

/// What libtest calls the test in which this closure is: its path without the crate.
fn test_name(closure: &'static str) -> &'static str {
    let function = closure.split("::{{closure}}").next().unwrap_or(closure);
    function.split_once("::").map_or(function, |(_, name)| name)
}

fn util() -> Result<PathBuf, Missing> {
    program(&["softhsm2-util"])
}

fn module() -> Result<PathBuf, Missing> {
    let found = MODULES.iter().map(PathBuf::from).find(|path| path.is_file());
    found.ok_or_else(|| Missing("the library libsofthsm2.so is not installed".to_owned()))
}
