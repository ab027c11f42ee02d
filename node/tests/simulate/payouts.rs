//! Where every unit goes.

use serde_json::Value;

use super::{gauntlet, manifest, run_of, simulate, stderr};

#[test]
fn every_unit_paid_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let summary = simulate(&out, "honest:3,signflip", "20", &[]);
    let run = out.display().to_string();
    let (mut paid, mut weighed) = (0, 0);
    let everybody =
        summary["peers"].as_array().unwrap().iter().chain(summary["validators"].as_array().unwrap());
    for node in everybody {
        let output = gauntlet(&["explain", node["name"].as_str().unwrap(), "--run", &run, "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["balance"], node["balance"]);
        assert_eq!(said["accounted"], true, "{said:#}");
        for payout in said["payouts"].as_array().unwrap() {
            assert_eq!(payout["paid"], payout["recomputed"], "{payout}");
            let weights = payout["weights"].as_array().unwrap();
            let given = |weight: &Value| weight[1].as_f64().unwrap() * weight[2].as_f64().unwrap();
            if payout["incentive"].as_f64().unwrap() > 0.0 {
                assert!(
                    weights.iter().map(given).sum::<f64>() >= 0.5 * payout["consensus"].as_f64().unwrap()
                );
                weighed += 1;
            }
        }
        paid += node["balance"].as_u64().unwrap();
    }
    assert!(weighed > 0, "weights were set, so payouts follow from them");
    let earners = summary["peers"].as_array().unwrap().iter().filter(|p| p["balance"].as_u64().unwrap() > 0);
    assert!(earners.count() > 0, "{summary:#}");
    let chain = &summary["chain"];
    assert_eq!(paid + chain["burned"].as_u64().unwrap(), chain["emission"].as_u64().unwrap());
    // A share that was not the validator's is noticed.
    let events = std::fs::read_to_string(out.join("events.jsonl")).unwrap();
    let tampered =
        events.replacen("\"event\":\"paid\",\"hotkey\"", "\"event\":\"void\",\"hotkey\"", usize::MAX);
    assert_ne!(events, tampered);
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::copy(out.join("manifest.toml"), other.join("manifest.toml")).unwrap();
    std::fs::write(other.join("events.jsonl"), tampered).unwrap();
    let output = gauntlet(&["explain", "honest-1", "--run", &other.display().to_string(), "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["accounted"], false);
    let nobody = gauntlet(&["explain", "somebody", "--run", &run]);
    assert_eq!(nobody.status.code(), Some(2));
    assert!(stderr(&nobody).contains("honest-1"), "{}", stderr(&nobody));
}

#[test]
fn reference_rules_burn_and_rank_by_marginal_value() {
    let folder = tempfile::tempdir().unwrap();
    let path = manifest(folder.path(), &[("profile = \"paper\"", "profile = \"reference-2026\"")]);
    let output = gauntlet(&["config", "print", "--config", &path]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("chain.ledger.owner"), "{}", stderr(&output));
    let owner = format!("emission_per_block = 1000000000\nowner = \"{}\"", "07".repeat(32));
    let changes = [
        ("profile = \"paper\"", "profile = \"reference-2026\"\n[gauntlet.loss]\nrank_by = \"marginal\""),
        ("emission_per_block = 1000000000", &owner),
    ];
    let (summary, _) = run_of(folder.path(), &changes, &["--peers", "honest:4", "--windows", "9"]);
    assert_eq!((&summary["all_agree"], &summary["chain"]["adds_up"]), (&true.into(), &true.into()));
    let facts = std::fs::read_to_string(folder.path().join("run/facts.jsonl")).unwrap();
    let facts: Vec<gauntlet::RoundFacts> =
        facts.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let losses: Vec<_> = facts.iter().flat_map(|facts| facts.losses.values()).collect();
    // Where the gather set holds nobody else there is nothing to be moved by.
    let marginal = |l: &&&gauntlet::loss_score::Losses| l.marginal.unwrap().before != l.random_before;
    let moved: Vec<_> = losses.iter().filter(marginal).collect();
    assert!(moved.len() > 5 && 2 * moved.len() > losses.len(), "{} of {}", moved.len(), losses.len());
    let helped = moved.iter().filter(|l| l.marginal.unwrap().before < l.random_before).count();
    assert!(2 * helped > moved.len(), "the others' step helps: {helped} of {}", moved.len());
    let (burned, paid) = (&summary["chain"]["burned"], &summary["chain"]["paid_to_peers"]);
    assert!(burned.as_u64().unwrap() >= paid.as_u64().unwrap(), "half is burned: {}", summary["chain"]);
    assert!(paid.as_u64().unwrap() > 0);
}
