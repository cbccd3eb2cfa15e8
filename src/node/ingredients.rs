//! Which versions of secrets a rendered template has in it: the manager knows these, and not the
//! rendering.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use secretfs_wire::VersionId;
use secretfs_wire::manifest::{Content, Manifest};

/// What renderings are made from, as long as anybody may have one open.
#[derive(Default)]
pub(super) struct Ingredients {
    of: HashMap<VersionId, BTreeSet<VersionId>>,
    newest: Option<Arc<Manifest>>,
}

impl Ingredients {
    /// Another manifest is about to be shown.
    pub(super) fn learn(&mut self, manifest: &Arc<Manifest>) {
        for target in manifest.targets() {
            if let Content::Template(recipe) = &target.content {
                let inputs = recipe.inputs.values().map(|input| input.version_id).collect();
                self.of.insert(target.version_id, inputs);
            }
        }
        self.newest = Some(manifest.clone());
    }

    /// Puts, in place of each rendering that is held open, the versions in it that are not served under
    /// `told`, the last manifest that the kernel knows of.
    pub(super) fn in_place_of_renderings(
        &mut self,
        held: BTreeMap<VersionId, u64>,
        told: &Arc<Manifest>,
    ) -> BTreeMap<VersionId, u64> {
        let served: BTreeSet<_> = told.targets().map(|target| target.version_id).collect();
        // While a newer one is on its way to the kernel, nobody has opened what it brings.
        if self.newest.as_ref().is_some_and(|newest| Arc::ptr_eq(newest, told)) {
            self.of.retain(|rendering, _| held.contains_key(rendering) || served.contains(rendering));
        }
        let mut replaced = BTreeMap::new();
        for (version, handles) in held {
            match self.of.get(&version) {
                Some(inputs) => {
                    for input in inputs.difference(&served) {
                        *replaced.entry(*input).or_default() += handles;
                    }
                }
                None => *replaced.entry(version).or_default() += handles,
            }
        }
        replaced
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::test_manifest::{manifest, target, template};

    fn id(number: u64) -> VersionId {
        VersionId::from_u64(number).expect("an id")
    }

    /// `user` and `password`, and `dsn` that is made from both.
    fn shown(user: u64, password: u64) -> (Arc<Manifest>, VersionId) {
        let (user, password) = (target(user, 5), target(password, 5));
        let inputs = [("user", user.clone()), ("password", password.clone())];
        let dsn = template("{{ secrets.user }}:{{ secrets.password }}", inputs);
        let rendering = dsn.version_id;
        let targets = [("web", "user", user), ("web", "password", password), ("web", "dsn", dsn)];
        (Arc::new(manifest(targets)), rendering)
    }

    #[test]
    fn an_old_rendering_holds_what_has_changed_since() {
        let mut ingredients = Ingredients::default();
        let (first, rendering) = shown(1, 2);
        ingredients.learn(&first);
        let (second, _) = shown(1, 3);
        ingredients.learn(&second);
        // Two have the old rendering open, and one the old file.
        let held = BTreeMap::from([(rendering, 2), (id(2), 1)]);
        let replaced =
            |ingredients: &mut Ingredients, told| ingredients.in_place_of_renderings(held.clone(), told);
        assert_eq!(replaced(&mut ingredients, &first), BTreeMap::from([(id(2), 1)]), "it is not old yet");
        assert_eq!(replaced(&mut ingredients, &second), BTreeMap::from([(id(2), 3)]));

        assert!(ingredients.in_place_of_renderings(BTreeMap::new(), &second).is_empty());
        assert_eq!(ingredients.of.len(), 1, "closed is forgotten");
    }
}
