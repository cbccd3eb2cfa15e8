//! What happens when the log cannot be written.

use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_failed_is_written_again_and_keeps_nobody_waiting() {
    let rig = Rig::new().await;
    let (audit, log) = rig.open_faulty().await;
    log.fail_checkpoints(true);
    record(&audit, 1).await;
    poll("trouble", async || audit.status().trouble().is_some()).await;
    log.fail_checkpoints(false);
    poll("a checkpoint", async || audit.status().trouble().is_none()).await;
    timeout(SOON, record(&audit, 1)).await.expect("nobody waits");
    signed(&audit).await;
    rig.verify(&audit).await.expect("whole");
}

#[tokio::test]
async fn a_rotation_that_was_made_and_reported_as_failed_is_gone_on_from() {
    let rig = Rig::new().await;
    let (audit, log) = rig.open_faulty().await;
    record(&audit, 1).await;
    log.deny_next();
    audit.rotate_key().await.expect_err("so it was reported");
    record(&audit, 1).await;
    signed(&audit).await;
    assert_eq!(rig.verify(&audit).await.expect("whole").keys.len(), 2);
    assert_eq!(audit.status().trouble(), None);
}

#[tokio::test]
async fn a_refusal_that_could_not_be_recorded_is_counted() {
    let rig = Rig::new().await;
    let (audit, log) = rig.open_faulty().await;
    let refused = Event::new(Action::SecretList, Outcome::Denied, Actor::Anonymous);
    log.fail(true);
    audit.record_refused(refused.clone()).await.expect_err("not recorded");
    audit.record_refused(refused.clone()).await.expect("counted");
    log.fail(false);
    close(&audit, vec![]).await;
    let all = records(&audit).await;
    let counts = |action| all.iter().filter(move |record| record.event.action == action);
    let counted: Vec<_> = counts(Action::SecretList).map(|record| record.event.count).collect();
    assert_eq!(counted, [Some(2)]);
    assert_eq!(counts(Action::AuditGap).map(|record| record.event.count).collect::<Vec<_>>(), [Some(1)]);
}
