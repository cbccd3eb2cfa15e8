//! What somebody tries who can write the log's database while no manager runs.

use std::fs;

use super::*;
use crate::data_dir;

/// Makes all records after the second another's, each consistent with the one before it.
async fn write_anew(rig: &Rig, audit: &Audit) {
    let mut forged = records(audit).await;
    let mut previous = forged[1].previous;
    for record in &mut forged[1..] {
        record.event.action = Action::SecretRemove;
        record.previous = previous;
        let written = record.write().expect("written");
        previous = Some(written.hash);
        rig.sql(&format!(
            "UPDATE records SET record = '{}', hash = x'{}' WHERE sequence = {}",
            written.text, written.hash, record.sequence
        ));
    }
}

/// The log is not gone on with when it is opened, and can be looked at all the same.
async fn is_refused(rig: &Rig, why: &str) {
    let (audit, _) = rig.open().await;
    let trouble = audit.status().trouble().expect("trouble");
    assert!(trouble.contains("the audit log is broken") && trouble.contains(why), "{trouble}");
    let refused = audit.record(vec![event(0).into()], Durability::Power).await;
    assert!(matches!(refused, Err(AuditError::Broken(_))), "{refused:?}");
    export(&audit, None).await;
}

#[tokio::test]
async fn a_record_made_anew_with_its_hash_is_found_by_a_signature_here_or_elsewhere() {
    let rig = Rig::new().await;
    let (audit, log) = rig.open().await;
    record(&audit, 3).await;
    close(&audit, vec![]).await;
    let kept = last_checkpoint(&audit).await;
    let (chain, _) = audit.chain().expect("a chain");
    write_anew(&rig, &audit).await;
    // All is consistent, but for the signatures.
    let fault = rig.verify(&audit).await.expect_err("forged");
    assert_eq!(fault.damage, Damage::Forged);
    // Also when those are gone: who kept a checkpoint elsewhere knows.
    rig.sql("DELETE FROM checkpoints WHERE sequence > 1");
    rig.verify(&audit).await.expect("nothing here says otherwise");
    let (_, key) = &log.audit_keys(chain).await.expect("keys")[0];
    let bundle = rig.authority.ca_bundle();
    let mut verifier = Verifier::from_checkpoint(bundle, &key.certificate, &kept).expect("a checkpoint");
    let last = log.records(chain, kept.checkpoint.sequence, None, 1).await.expect("records");
    assert_eq!(verifier.record(&last[0].written).expect_err("forged").damage, Damage::Forged);
    // And so does the manager, which does not sign what was forged.
    is_refused(&rig, "record 4").await;
}

#[tokio::test]
async fn a_log_is_not_gone_on_with_when_nothing_says_how_far_it_was_signed() {
    let rig = Rig::new().await;
    let mark = rig.directory.path().join(data_dir::AUDIT_MARK);
    let (audit, _) = rig.open().await;
    close(&audit, vec![]).await;
    // It was begun, and its manager killed before that was marked.
    fs::remove_file(&mark).expect("removed");
    let (audit, _) = rig.open().await;
    assert_eq!(audit.status().trouble(), None);
    record(&audit, 1).await;
    close(&audit, vec![]).await;
    let earlier = fs::read(&mark).expect("a mark");
    let (audit, _) = rig.open().await;
    record(&audit, 3).await;
    close(&audit, vec![]).await;

    let last = fs::read(&mark).expect("a mark");
    fs::remove_file(&mark).expect("removed");
    is_refused(&rig, "nothing says how far it was signed").await;
    fs::write(&mark, [&last[..last.len() - 1], b"x"].concat()).expect("written");
    is_refused(&rig, "cannot be sealed or opened").await;
    // One that is behind, since the manager was killed in between, says less and is true.
    fs::write(&mark, earlier).expect("written");
    let (audit, _) = rig.open().await;
    assert_eq!(audit.status().trouble(), None);
    assert_ne!(fs::read(&mark).expect("a mark"), last, "and is brought up to date");
    rig.verify(&audit).await.expect("whole");
}

#[tokio::test]
async fn an_earlier_chain_is_looked_at_as_well() {
    for statement in [
        "UPDATE records SET record = replace(record, '\"version\":1', '\"version\":2') WHERE sequence = 3",
        "DELETE FROM checkpoints WHERE sequence = 5 AND chain = (SELECT id FROM chains WHERE place = 1)",
    ] {
        let rig = Rig::new().await;
        let (audit, _) = rig.open().await;
        record(&audit, 4).await;
        close(&audit, vec![]).await;
        SqliteAudit::end_chains(&rig.file()).await.expect("ended");
        let (audit, _) = rig.open().await;
        close(&audit, vec![]).await;
        rig.sql(statement);
        let (audit, _) = rig.open().await;
        poll(statement, async || audit.status().trouble().is_some()).await;
        let trouble = audit.status().trouble().expect("trouble");
        assert!(trouble.contains("in chain"), "{trouble}");
    }
}

#[tokio::test]
async fn nothing_but_a_record_of_a_chain_makes_an_open_known() {
    let rig = Rig::new().await;
    let (audit, _) = rig.open().await;
    let (actor, _) = node();
    let log = OpenLogId::random();
    let opened = |number| Event { id: Some(EventId { log, number }), actor: actor.clone(), ..event(0) };
    record(&audit, 3).await;
    // Where it was a column of its own it could be set.
    let _ = rig.try_sql("UPDATE records SET reported = 'a node/a log/1' WHERE sequence = 2");
    // Rows that belong to no chain, or stand before its first record, are verified by nobody.
    let text = |number| serde_json::json!({ "event": opened(number) }).to_string();
    rig.sql(&format!(
        "INSERT INTO records (chain, sequence, record, hash) VALUES (7, 1, '{}', x'00')",
        text(1)
    ));
    rig.sql(&format!(
        "INSERT INTO records (chain, sequence, record, hash) SELECT id, -1, '{}', x'00' FROM chains",
        text(2)
    ));
    for number in [1, 2] {
        audit.record(vec![opened(number).into()], Durability::Power).await.expect("recorded");
    }
    let told = records(&audit).await.into_iter().filter_map(|record| record.event.id);
    assert_eq!(told.map(|id| id.number).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn nothing_but_a_record_of_a_chain_makes_a_loss_known() {
    let rig = Rig::new().await;
    let (actor, source) = node();
    let lost = |total| {
        let event = Event::new(Action::FileLost, Outcome::Failed, actor.clone());
        vec![Entry { event, loss: Some((source, total)) }]
    };
    let (audit, _) = rig.open().await;
    audit.record(lost(3), Durability::Power).await.expect("recorded");
    close(&audit, vec![]).await;
    let _ = rig.try_sql("UPDATE losses SET total = 1000");
    let (audit, _) = rig.open().await;
    audit.record(lost(5), Durability::Power).await.expect("recorded");
    let counts: Vec<_> = records(&audit).await.iter().filter_map(|record| record.event.count).collect();
    assert_eq!(counts, [3, 2]);
}
