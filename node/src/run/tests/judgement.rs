use super::super::judgement::{Judgement, limit};
use super::audit::judged;

#[test]
fn a_judgement_is_its_validators() {
    let mut judged = judged();
    let bytes = judged.judgement.to_bytes().unwrap();
    assert!(bytes.len() as u64 <= limit(&judged.small.world()));
    for at in (0..bytes.len()).step_by(11) {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert_eq!(Judgement::from_bytes(&bad), None, "byte {at}");
        assert_eq!(Judgement::from_bytes(&bytes[..at]), None);
    }
    assert_eq!(Judgement::from_bytes(&[&bytes[..], &[0]].concat()), None);
}
