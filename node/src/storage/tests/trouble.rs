use std::slice::from_ref;

use super::*;
use gauntlet::fast_check::UnknownCause;
use gauntlet::submission::Object;

#[test]
fn passing_trouble_passes() {
    let storage = memory();
    storage.put("k", b"whole").unwrap();
    for trouble in
        [Trouble::Drop, Trouble::LoseReply, Trouble::Status(503), Trouble::Status(429), Trouble::Short(2)]
    {
        let twice = storage.with_trouble(move |r| (r.nth < 2).then_some(trouble));
        assert_eq!(twice.get("k", 5).unwrap(), b"whole", "{trouble:?}");
        assert_eq!(twice.head("k").unwrap().size, 5);
        twice.put("k", b"whole").unwrap();
        twice.put_new("new", b"1").unwrap();
        twice.delete(&["new".to_owned()]).unwrap();
        assert_eq!(storage.head("new"), Err(Fault::Absent));
    }
}

#[test]
fn lasting_trouble_is_unknown_and_says_why() {
    let storage = memory();
    storage.put("k", b"whole").unwrap();
    for (trouble, cause, told) in [
        (Trouble::Drop, Cause::Connection, UnknownCause::Connection),
        (Trouble::Short(2), Cause::Connection, UnknownCause::Connection),
        (Trouble::Status(500), Cause::Server, UnknownCause::ServerError),
        (Trouble::Status(429), Cause::RateLimited, UnknownCause::RateLimited),
        (Trouble::Delay(Duration::from_secs(600)), Cause::TimeOut, UnknownCause::TimeOut),
    ] {
        let patience =
            if trouble == Trouble::Delay(Duration::from_secs(600)) { impatient() } else { hasty() };
        let always = storage.with_trouble(move |_| Some(trouble)).with_patience(patience);
        let fault = always.get("k", 5).unwrap_err();
        assert_eq!(fault, Fault::Unknown(cause));
        assert_eq!(Object::from(&fault), Object::Unknown(told));
    }
    assert_eq!(Object::from(&Fault::Absent), Object::Absent);
    assert_eq!(Object::from(&Fault::Denied), Object::Absent);
    assert_eq!(Object::from(&Fault::TooLarge { size: 9 }), Object::TooLarge);
}

#[test]
fn certain_answers_are_not_asked_for_again() {
    let asked = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let storage = memory().with_trouble(move |_| {
        count.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        None
    });
    assert_eq!(storage.get("none", 5), Err(Fault::Absent));
    assert_eq!(asked.load(std::sync::atomic::Ordering::Acquire), 1);
}

/// A create whose reply is lost finds its own object there: that is success, and another's is not.
#[test]
fn a_lost_reply_is_not_a_lost_race() {
    let storage = memory();
    let lost = |r: &Request<'_>| (r.action == Action::Put && r.nth == 0).then_some(Trouble::LoseReply);
    storage.with_trouble(lost).put_new("mine", b"1").unwrap();
    assert_eq!(storage.get("mine", 1).unwrap(), b"1");
    let always = storage.with_trouble(|r| (r.action == Action::Put).then_some(Trouble::LoseReply));
    always.put("over", b"2").unwrap();
    // Seen as absent, and there when the put arrives: a race that somebody else won.
    storage.put("theirs", b"9").unwrap();
    let raced =
        storage.with_trouble(|r| (r.action == Action::Get && r.nth == 0).then_some(Trouble::Status(404)));
    assert_eq!(raced.put_new("theirs", b"1"), Err(Fault::Exists));
}

#[test]
fn a_flipped_bit_goes_unnoticed_here() {
    let storage = memory();
    storage.put("k", b"whole").unwrap();
    let spoilt = storage.with_trouble(|r| (r.action == Action::Get).then_some(Trouble::Flip(1)));
    assert_eq!(spoilt.get("k", 5).unwrap(), b"wiole", "only a hash tells");
}

/// Places of the objects that were heard of, good ones and bad, in this order.
fn heard(wanted: &[Wanted], instead: &[Wanted], enough: usize) -> Vec<(usize, bool)> {
    let mut heard = Vec::new();
    let hear = |at, found: Found| {
        heard.push((at, found.is_ok()));
        match found {
            Ok(_) if at == enough => Heard::Enough,
            Ok(_) => Heard::Good,
            Err(_) => Heard::Bad,
        }
    };
    Storage::fetch_either(wanted, instead, Instant::now() + Duration::from_secs(600), hear).unwrap();
    heard
}

#[test]
fn what_is_slow_is_had_elsewhere() {
    let storage = memory();
    storage.put("k", b"whole").unwrap();
    let of = |storage: &Storage, key: &str| (storage.clone(), key.to_owned(), 5);
    let patient = Patience { base: Duration::from_secs(600), ..hasty() };
    let silent =
        storage.with_trouble(|_| Some(Trouble::Delay(Duration::from_secs(600)))).with_patience(patient);
    let (good, absent) = (of(&storage, "k"), of(&storage, "none"));
    let silent = of(&silent, "k");
    // Nothing else is needed: nothing else is asked for, and what is slow is not waited for.
    assert_eq!(heard(&[silent.clone(), good.clone()], from_ref(&absent), 1), [(1, true)]);
    // One that is not there: the next one instead, and the one after it where that is not there either.
    let instead = [absent.clone(), good.clone(), good.clone()];
    assert_eq!(heard(&[absent], &instead, 2), [(0, false), (1, false), (2, true)]);
    // One that never answers.
    let quick = of(&storage.with_patience(impatient()), "k");
    assert_eq!(heard(from_ref(&silent), from_ref(&quick), 1), [(1, true)]);
    let last = [of(&silent.0.with_patience(impatient()), "k"), quick];
    assert_eq!(heard(&[silent], &last, 2).last(), Some(&(2, true)), "nor the next one");
    assert_eq!(heard(&[], &[good], 9), [(0, true)]);
}

#[test]
fn one_slow_peer_holds_nobody_up() {
    let storage = memory();
    storage.put("k", b"whole").unwrap();
    let slow = storage.with_trouble(|_| Some(Trouble::Delay(Duration::from_secs(600))));
    let patient = Patience { base: Duration::from_secs(600), ..hasty() };
    // As many as a subnet has slots, the slow ones first.
    let wanted: Vec<_> = (0..256)
        .map(|n| if n < 200 { slow.with_patience(patient) } else { storage.clone() })
        .map(|storage| (storage, "k".to_owned(), 5))
        .collect();
    let found = bytes_of(&wanted, Instant::now() + Duration::from_secs(2));
    for (n, found) in found.into_iter().enumerate() {
        if n < 200 {
            assert_eq!(found, Err(Fault::Unknown(Cause::TimeOut)));
        } else {
            assert_eq!(found.unwrap(), b"whole");
        }
    }
}

#[test]
fn large_objects_wait_for_each_other() {
    let storage = memory();
    storage.put("k", b"whole").unwrap();
    let wanted = vec![(storage, "k".to_owned(), u64::MAX); 100];
    for found in bytes_of(&wanted, Instant::now() + Duration::from_secs(600)) {
        assert_eq!(found.unwrap(), b"whole");
    }
}
