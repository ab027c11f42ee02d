//! All objects of a run but submissions: what they are shows in their bytes.

use anyhow::Result;
use gauntlet::record::SignedRecord;
use gauntlet::{Hotkey, State};
use gauntlet_demo::object;
use serde_json::{Value, json};

use super::Said;
use crate::run::identity::verify;
use crate::run::judgement::Judgement;
use crate::run::{bundle, checkpoint, commitment, persist, statement, values};
use crate::storage::ss58;

/// What an object says; none for bytes that are no such object.
pub(super) fn said(bytes: &[u8]) -> Result<Option<Said>> {
    Ok(Some(if let Some(found) = commitment::read(bytes) {
        commitment_rows(&found)
    } else if let Some(found) = values::read(bytes) {
        values_rows(&found)
    } else if let Some(objects) = bundle::read(bytes) {
        bundle_rows(bytes, &objects)
    } else if let Ok(state) = State::from_bytes(bytes) {
        state_rows(&state)
    } else if let Some(saved) = persist::read(bytes) {
        node_rows(&saved)
    } else if let Some(manifest) = checkpoint::read(bytes) {
        checkpoint_rows(&manifest)
    } else if let Some(judgement) = Judgement::from_bytes(bytes) {
        judgement_rows(&judgement)
    } else if let Ok(signed) = SignedRecord::from_bytes(bytes) {
        record_rows(&signed)?
    } else if let Some(said) = statement::Said::from_bytes(bytes) {
        statement_rows(&said)
    } else {
        return Ok(None);
    }))
}

fn commitment_rows(found: &commitment::Commitment) -> Said {
    let commitment::Commitment { run, window, hotkey, content } = found;
    let rows = vec![
        ("kind", "commitment, signature valid".into()),
        ("run", run.to_string()),
        ("window", window.to_string()),
        ("hotkey", ss58::encode(hotkey)),
        ("object", content.to_string()),
    ];
    let result = json!({
        "kind": "commitment", "run": run, "window": window, "hotkey": ss58::encode(hotkey), "object": content,
    });
    (rows, result)
}

fn bundle_rows(bytes: &[u8], objects: &[&[u8]]) -> Said {
    let owner = |object: &&[u8]| match object::open(object) {
        Ok(object) => ss58::encode(&Hotkey(object.header.hotkey)),
        Err(error) => format!("not a valid submission: {error}"),
    };
    let owners: Vec<String> = objects.iter().map(owner).collect();
    let hash = gauntlet::Digest::of(bytes);
    let mut rows =
        vec![("kind", "bundle".into()), ("hash", hash.to_string()), ("bytes", bytes.len().to_string())];
    rows.extend(
        owners.iter().zip(objects).map(|(owner, o)| ("object", format!("{owner}, {} bytes", o.len()))),
    );
    let objects: Vec<Value> = owners
        .iter()
        .zip(objects)
        .map(|(owner, o)| json!({ "hotkey": owner, "bytes": o.len(), "hash": gauntlet::Digest::of(o) }))
        .collect();
    (rows, json!({ "kind": "bundle", "hash": hash, "bytes": bytes.len(), "objects": objects }))
}

fn record_rows(signed: &SignedRecord) -> Result<Said> {
    let record = &signed.record;
    let signature = if signed.check_signature(&verify).is_ok() { "valid" } else { "INVALID" };
    let hash = record.hash()?;
    let mut rows = vec![
        ("kind", format!("record, signature {signature}")),
        ("run", record.run.to_string()),
        ("window", record.window.to_string()),
        ("leader", ss58::encode(&record.leader)),
        ("hash", hash.to_string()),
        ("previous", record.previous.to_string()),
        ("θ before", record.state_before.to_string()),
        ("bundle", record.bundle.to_string()),
        ("commitments", record.commitments.len().to_string()),
        ("selected", format!("{} for window {}", record.selection.gather.len(), record.selection.window)),
    ];
    rows.extend(
        record
            .accepted
            .iter()
            .map(|a| ("accepted", format!("{}, {} bytes", ss58::encode(&a.hotkey), a.size))),
    );
    let result = json!({ "kind": "record", "hash": hash, "signature": signature, "record": record });
    Ok((rows, result))
}

fn statement_rows(said: &statement::Said) -> Said {
    let statement = &said.statement;
    let rows = vec![
        ("kind", "statement on a record, signature valid".into()),
        ("validator", ss58::encode(&statement.validator)),
        ("window", said.seen.record.window.to_string()),
        ("record", statement.record.to_string()),
        ("view", format!("{:?}", statement.view)),
    ];
    let result = json!({
        "kind": "statement", "validator": ss58::encode(&statement.validator), "window": said.seen.record.window,
        "record": statement.record, "view": statement.view,
    });
    (rows, result)
}

fn values_rows(found: &values::Values) -> Said {
    let values::Values { run, window, hotkey, values } = found;
    let rows = vec![
        ("kind", "published values of θ, signature valid".into()),
        ("run", run.to_string()),
        ("window", window.to_string()),
        ("hotkey", ss58::encode(hotkey)),
        ("values", values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
    ];
    let result = json!({
        "kind": "values", "run": run, "window": window, "hotkey": ss58::encode(hotkey), "values": values,
    });
    (rows, result)
}

fn checkpoint_rows(manifest: &checkpoint::Manifest) -> Said {
    let mut rows = vec![
        ("kind", "manifest of a checkpoint; only a record vouches for it".into()),
        ("run", manifest.run.to_string()),
        ("window", manifest.window.to_string()),
        ("θ", manifest.theta.to_string()),
    ];
    let file = |part: &checkpoint::Part| format!("{}, {} bytes, {}", part.name, part.size, part.hash);
    rows.extend(manifest.files.iter().map(|part| ("file", file(part))));
    (rows, json!({ "kind": "checkpoint", "manifest": manifest }))
}

fn judgement_rows(judgement: &Judgement) -> Said {
    let facts = &judgement.facts;
    let mut rows = vec![
        ("kind", "judgement, signature valid".into()),
        ("run", facts.window.run.to_string()),
        ("window", facts.window.window.to_string()),
        ("validator", ss58::encode(&facts.window.validator)),
        ("peers", facts.window.peers.len().to_string()),
    ];
    let check = |(hotkey, check): (&Hotkey, &_)| ("check", format!("{}: {check:?}", ss58::encode(hotkey)));
    rows.extend(facts.checks.checks.iter().map(check));
    let losses = |(hotkey, l): (&Hotkey, &gauntlet::loss_score::Losses)| {
        let text = format!(
            "{}: own {:.6} to {:.6}, random {:.6} to {:.6}",
            ss58::encode(hotkey),
            l.own_before,
            l.own_after,
            l.random_before,
            l.random_after
        );
        ("losses", text)
    };
    rows.extend(facts.losses.iter().map(losses));
    let before = State::from_bytes(&judgement.before).ok();
    (rows, json!({ "kind": "judgement", "facts": facts, "state_before": before }))
}

fn state_rows(state: &State) -> Said {
    let mut rows =
        vec![("kind", "what a validator remembers".into()), ("next window", state.next_window.to_string())];
    let peer = |(hotkey, p): (&Hotkey, &gauntlet::state::PeerState)| {
        let rating = p.rating.loss_rating();
        let text = format!(
            "{}: μ {:.4}, LossRating {rating:.4}, {} evaluations, {} commitments",
            ss58::encode(hotkey),
            p.proof,
            p.evaluations,
            p.commitments
        );
        ("peer", text)
    };
    rows.extend(state.peers.iter().map(peer));
    (rows, json!({ "kind": "state", "state": state }))
}

fn node_rows(saved: &persist::Summary) -> Said {
    let persist::Summary { run, hotkey, role, window, theta, steps } = saved;
    let rows = vec![
        ("kind", format!("state of a {role}")),
        ("run", run.to_string()),
        ("hotkey", ss58::encode(hotkey)),
        ("window", window.to_string()),
        ("θ", theta.to_string()),
        ("steps", steps.to_string()),
    ];
    let result = json!({
        "kind": "node", "role": role, "run": run, "hotkey": ss58::encode(hotkey), "window": window, "theta": theta,
        "steps": steps,
    });
    (rows, result)
}
