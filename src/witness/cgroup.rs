//! Control groups and the containers that they are (cgroups(7)).

/// What `/proc/PID/cgroup` says: the path of one control group, and the container that it belongs to.
///
/// A process has one for each hierarchy that there is. The one that names a container counts; otherwise
/// that of the unified hierarchy, then systemd's own, those that container runtimes always make (memory,
/// pids), and then the first. Within a path the outermost container counts: who is inside may make groups
/// below its own, and not above.
pub(super) fn parse(content: &[u8]) -> Option<(String, Option<String>)> {
    let lines: Vec<_> = content.split(|byte| *byte == b'\n').filter_map(Line::parse).collect();
    let named = lines.iter().find_map(|line| Some((line, container(line.path)?)));
    if let Some((line, id)) = named {
        return Some((super::text(line.path), Some(id.to_owned())));
    }
    let line = lines.iter().min_by_key(|line| line.rank())?;
    Some((super::text(line.path), None))
}

/// `hierarchy:controllers:path`
struct Line<'a> {
    hierarchy: &'a [u8],
    controllers: &'a [u8],
    path: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(3, |byte| *byte == b':');
        Some(Self { hierarchy: parts.next()?, controllers: parts.next()?, path: parts.next()? })
    }

    fn rank(&self) -> usize {
        let has = |wanted: &[u8]| self.controllers.split(|byte| *byte == b',').any(|part| part == wanted);
        // On a host that uses the older hierarchies the unified one is there too, and everybody is at its
        // root.
        let ranks = [
            self.hierarchy == b"0" && self.path != b"/",
            has(b"name=systemd") && self.path != b"/",
            has(b"memory"),
            has(b"pids"),
        ];
        ranks.iter().position(|holds| *holds).unwrap_or(ranks.len())
    }
}

/// The outermost component that is a container's: its id, alone or as a runtime writes it for systemd.
fn container(path: &[u8]) -> Option<&str> {
    path.split(|byte| *byte == b'/').find_map(|component| {
        let component = std::str::from_utf8(component).ok()?;
        let id = match component.strip_suffix(".scope") {
            // docker-, cri-containerd-, crio-, libpod-
            Some(scope) => scope.rsplit_once('-')?.1,
            None => component,
        };
        is_id(id).then_some(id)
    })
}

/// Docker, containerd, CRI-O and Podman name a container by 64 hexadecimal digits.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4c0b8e5d1a7296c0ffee00aa11bb22cc33dd44ee55ff6600112233445566ab";
    const OTHER: &str = "0000000000000000000000000000000000000000000000000000000000000001";

    fn container_of(content: &str) -> Option<String> {
        parse(content.as_bytes()).expect("a control group").1
    }

    #[test]
    fn a_container_is_known_under_every_runtime() {
        for content in [
            // Docker with cgroupfs and with systemd.
            format!("0::/docker/{ID}\n"),
            format!("0::/system.slice/docker-{ID}.scope\n"),
            // Docker, systemd inside of the container.
            format!("0::/system.slice/docker-{ID}.scope/init.scope\n"),
            // Kubernetes with containerd, with CRI-O, and with cgroupfs.
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod2a.slice/cri-containerd-{ID}.scope\n"
            ),
            format!(
                "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod9.slice/crio-{ID}.scope\n"
            ),
            format!("0::/kubepods/burstable/pod2f0a3f3e-8d5f-4c2e-9a42-5a1f2b3c4d5e/{ID}\n"),
            // Podman, of root and of an ordinary user.
            format!("0::/machine.slice/libpod-{ID}.scope/container\n"),
            format!("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope\n"),
            // The older hierarchies: with systemd, and as here without.
            format!("12:pids:/docker/{ID}\n2:cpu,cpuacct:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/\n"),
            format!("4:memory:/process_api/1\n3:cpuset:/\n2:pids:/docker/{ID}\n0::/\n"),
        ] {
            assert_eq!(container_of(&content).as_deref(), Some(ID), "{content}");
        }
    }

    #[test]
    fn what_is_no_container_is_taken_for_none() {
        for content in [
            "0::/\n".to_owned(),
            "0::/user.slice/user-1000.slice/session-2.scope\n".to_owned(),
            "0::/system.slice/docker.service\n".to_owned(),
            format!("0::/docker/{}\n", &ID[1..]),
            format!("0::/docker/{}\n", ID.to_uppercase()),
            format!("0::/docker/{ID}0\n"),
            format!("0::/system.slice/{ID}.service\n"),
        ] {
            assert_eq!(container_of(&content), None, "{content}");
        }
    }

    #[test]
    fn who_is_inside_cannot_seem_to_be_in_another_container() {
        assert_eq!(container_of(&format!("0::/docker/{ID}/docker/{OTHER}\n")).as_deref(), Some(ID));
    }

    #[test]
    fn without_a_container_the_most_telling_hierarchy_counts() {
        let path = |content: &str| parse(content.as_bytes()).expect("a control group").0;
        assert_eq!(path("9:memory:/a\n1:name=systemd:/b\n0::/c\n"), "/c");
        assert_eq!(path("9:memory:/a\n1:name=systemd:/b\n0::/\n"), "/b");
        assert_eq!(path("9:cpu:/d\n8:memory:/a\n1:name=systemd:/\n0::/\n"), "/a");
        assert_eq!(path("9:cpu:/d\n0::/\n"), "/d");
        assert_eq!(path("0::/with:colons/and\u{e9}\n"), "/with:colons/and\u{e9}");
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"0::/\xff\n").expect("a control group").0, "/\\xff");
    }
}
