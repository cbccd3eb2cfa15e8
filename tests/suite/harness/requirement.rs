//! What a test needs of the machine. A developer's machine may lack it: the test says loudly what is
//! missing and is ignored. Under `CI=true` it fails.

use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};

use crate::backends::openbao::OpenBao;
use crate::backends::softhsm::SoftHsm;

/// Something that a machine may lack.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Need {
    /// root and /dev/fuse, to mount for all users.
    Mount,
    /// Docker Engine's programs and a static busybox for an image.
    Containers,
    /// Loop devices and mkfs.ext4.
    LoopImage,
    /// Hosts and a wire between them, made of network namespaces.
    Network,
    /// libfaketime, for a clock that is wrong.
    Clock,
    /// The openssl command, for what rustls is built without.
    OpenSsl,
    /// The commands age and age-keygen.
    Age,
    /// The sqlite3 command, to change a database behind the manager's back.
    Sqlite,
    /// An OpenBao or Vault to start.
    OpenBao,
    /// SoftHSM, an HSM that is a library.
    SoftHsm,
    /// rsyslogd, with its driver for TLS.
    Rsyslog,
}

impl Need {
    /// What is missing, if something is.
    fn missing(self) -> Option<String> {
        match self {
            Self::Mount => {
                if !rustix::process::geteuid().is_root() {
                    return Some("root, to mount for other users too".to_owned());
                }
                absent("/dev/fuse")
            }
            Self::Containers => ["dockerd", "docker", "busybox"].into_iter().find_map(not_installed),
            Self::LoopImage => absent("/dev/loop-control")
                .or_else(|| ["mkfs.ext4", "mount"].into_iter().find_map(not_installed)),
            Self::Network => ["ip", "nsenter"].into_iter().find_map(not_installed),
            Self::Clock => {
                super::clock::library().is_none().then(|| "libfaketime is not installed".to_owned())
            }
            Self::OpenSsl => not_installed("openssl"),
            Self::Age => ["age", "age-keygen"].into_iter().find_map(not_installed),
            Self::Sqlite => not_installed("sqlite3"),
            Self::OpenBao => OpenBao::missing().map(|missing| missing.to_string()),
            Self::SoftHsm => SoftHsm::missing().map(|missing| missing.to_string()),
            Self::Rsyslog => not_installed("rsyslogd").or_else(super::rsyslog::missing_driver),
        }
    }
}

fn absent(path: &str) -> Option<String> {
    (!Path::new(path).exists()).then(|| format!("{path} does not exist"))
}

fn not_installed(program: &str) -> Option<String> {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$0\"", program])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    (!found).then(|| format!("the program {program} is not installed"))
}

/// One test, or the reason why it cannot run.
pub(crate) fn trial(module: &str, name: &str, needs: &[Need], test: fn()) -> Trial {
    let module = module.rsplit("::").next().unwrap_or(module);
    let name = format!("{module}::{name}");
    match needs.iter().find_map(|need| need.missing()) {
        None => Trial::test(name, move || {
            test();
            Ok(())
        }),
        Some(missing) => {
            let developer = std::env::var_os("CI").is_none_or(|ci| ci != "true");
            if developer {
                say_skipped(&name, &missing);
            }
            let failed = Failed::from(format!("this machine lacks what the test needs: {missing}"));
            Trial::test(name, move || Err(failed)).with_ignored_flag(developer)
        }
    }
}

#[allow(clippy::print_stderr, reason = "a skipped test must not look like a passed one")]
fn say_skipped(name: &str, missing: &str) {
    eprintln!("SKIPPED {name}: {missing}; `tests/run` as root installs what is missing");
}

/// The tests of a module. One that is written and not listed is dead code, which the compiler
/// reports.
macro_rules! trials {
    (needs [$($need:ident),*]; $($test:ident,)*) => {
        pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
            let needs: &[$crate::harness::Need] = &[$($crate::harness::Need::$need),*];
            vec![$($crate::harness::requirement::trial(module_path!(), stringify!($test), needs, $test)),*]
        }
    };
}
pub(crate) use trials;
