use proptest::prelude::*;

use super::*;
use crate::cutover::gate::{Name, Says};
use crate::cutover::plan::{Course, SetText, Way};

fn order() -> Order {
    Order {
        way: Way::Cutover,
        to: "rbx".into(),
        reason: None,
        overrides: Vec::new(),
        digest: None,
        by: None,
    }
}

fn plan(course: Course) -> Plan {
    let set = |ttl, value: &str| {
        Some(SetText {
            ttl,
            values: vec![value.to_owned()],
        })
    };
    Plan {
        way: Way::Cutover,
        from: Some("gra".into()),
        to: "rbx".into(),
        epoch: 7,
        made: "2026-01-01T00:00:00Z".into(),
        expires: "2026-01-01T00:10:00Z".into(),
        digest: "00".into(),
        provider: "rfc2136".into(),
        zone: "example.com".into(),
        sets: vec![PlannedSet {
            record: "shop.example.com A".into(),
            old: set(300, "192.0.2.10"),
            new: set(60, "192.0.2.20"),
            stored_ttl: Some(60),
        }],
        promises: Vec::new(),
        stragglers_s: 300,
        course,
        steps: Vec::new(),
    }
}

fn everything() -> Course {
    Course {
        hooks_before: 2,
        hooks_done: 1,
        hooks_rollback: 1,
        fence: true,
        promote: vec!["shop".into(), "cache".into()],
        open: true,
    }
}

/// What comes of an action: `luck` 0 is good, others are what may go wrong.
fn answer(state: &State, action: &Action, luck: u8, course: &Course) -> Event {
    let why = || "so it was".to_owned();
    let verdict = |says| Verdict::of(Name::OldRegionFenced, says, "");
    match (action, luck) {
        (Action::Plan, 1) => Event::Refused {
            why: why(),
            rule: true,
        },
        (Action::Plan, 2) => Event::Idle,
        (Action::Plan, _) => Event::Planned {
            plan: plan(course.clone()),
        },
        (Action::Judge, 1) => Event::Judged {
            verdicts: vec![verdict(Says::Fail)],
        },
        (Action::Judge, _) => Event::Judged {
            verdicts: vec![verdict(Says::Pass)],
        },
        (Action::Hook(when, index), luck) => Event::HookRan {
            when: *when,
            index: *index,
            ok: luck != 1,
            why: why(),
            took_ms: 1,
        },
        (Action::AnnounceFence, _) => Event::Fencing,
        (Action::Fence, luck) => Event::Fenced {
            ok: luck != 1,
            why: why(),
        },
        (Action::Prove, 1) => Event::Proved {
            verdict: verdict(Says::Fail),
        },
        (Action::Prove, _) => Event::Proved {
            verdict: verdict(Says::Pass),
        },
        (Action::AnnouncePromotion(at), _) => Event::Promoting {
            service: course.promote[*at].clone(),
        },
        (Action::Promote(at), luck) => Event::Promoted {
            service: course.promote[*at].clone(),
            ok: luck != 1,
            why: why(),
        },
        (Action::Open, luck) => Event::Opened {
            ok: luck != 1,
            why: why(),
        },
        _ => answer_to_the_change(state, action, luck, course),
    }
}

fn answer_to_the_change(state: &State, action: &Action, luck: u8, course: &Course) -> Event {
    let why = || "so it was".to_owned();
    match (action, luck) {
        (Action::AnnounceSending(_), 1) if !state.touched && !state.back => Event::Refused {
            why: why(),
            rule: true,
        },
        (Action::AnnounceSending(attempt), _) => Event::Sending { attempt: *attempt },
        (Action::Send, 1) => Event::Unsettled { why: why() },
        (Action::Send, 2) => Event::NotSent {
            why: why(),
            conflict: true,
            again: false,
        },
        (Action::Send, 3) => Event::NotSent {
            why: why(),
            conflict: false,
            again: true,
        },
        (Action::Send, _) => Event::Accepted {
            receipt: Receipt::default(),
            stored: plan(course.clone()).sets,
            proxied: Vec::new(),
            notes: Vec::new(),
        },
        (Action::Settle, luck) => Event::Settled {
            left: [
                Left::Nothing,
                Left::Some,
                Left::All,
                Left::Conflict,
                Left::Unread,
            ][usize::from(luck % 5)],
            why: why(),
        },
        (Action::AwaitDeployed, 1) => Event::NotDeployed { why: why() },
        (Action::AwaitDeployed, luck) => Event::Deployed { signal: luck != 2 },
        (Action::AwaitServed, 1) => Event::NotServed {
            waiting_for: vec![why()],
        },
        (Action::AwaitServed, _) => Event::Served {
            servers: vec![why()],
        },
        (Action::Release, luck) => Event::Released {
            ok: luck != 1,
            why: why(),
        },
        (Action::AwaitConverged, _) => Event::Converged { notes: Vec::new() },
        _ => unreachable!("nothing comes of resting"),
    }
}

const TIME: &str = "2026-01-01T00:00:01Z";

fn taken(state: Option<State>, event: &Event) -> (State, Action) {
    step(state, &At { time: TIME, event }).unwrap()
}

fn begun() -> Event {
    Event::Begun {
        order: order(),
        sidecar: "app-01".into(),
    }
}

/// Goes on with good luck until it rests.
fn goes_well(mut state: State, events: &mut Vec<Event>, course: &Course) -> State {
    for _ in 0..100 {
        let action = state.action();
        if action == Action::Rest {
            return state;
        }
        let event = answer(&state, &action, 0, course);
        state = taken(Some(state), &event).0;
        events.push(event);
    }
    panic!("it never ends: {state:?}");
}

#[test]
fn the_straight_way_ends_done_and_every_prefix_can_go_on_or_back() {
    for course in [Course::default(), everything()] {
        let mut events = vec![begun()];
        let (state, _) = taken(None, &events[0]);
        let done = goes_well(state, &mut events, &course);
        assert_eq!(done.end, Some(End::Done));
        for cut in 1..events.len() {
            let prefix = || events[..cut].iter().map(|event| At { time: TIME, event });
            let state = replay(prefix()).unwrap().unwrap();
            assert!(!state.is_over(), "{cut}");
            let resumed = taken(Some(state.clone()), &Event::Resumed { by: None }).0;
            assert_eq!(
                goes_well(resumed, &mut Vec::new(), &course).end,
                Some(End::Done),
                "{cut}"
            );
            let asked = Event::RollbackAsked {
                by: None,
                reason: None,
            };
            let (back, _) = taken(Some(state.clone()), &asked);
            let mut after = Vec::new();
            let back = match back.is_over() {
                true => back,
                false => goes_well(back, &mut after, &course),
            };
            assert_eq!(back.end, Some(End::RolledBack), "{cut}");
            // What was never sent is not taken back either.
            let sent = after
                .iter()
                .any(|event| matches!(event, Event::Sending { .. }));
            assert_eq!(sent, state.touched, "{cut}");
            let released = after
                .iter()
                .any(|event| matches!(event, Event::Released { .. }));
            assert_eq!(released, state.fenced, "{cut}");
        }
    }
}

#[test]
fn what_cannot_happen_is_no_journal_of_ours() {
    let (state, _) = taken(None, &begun());
    let served = Event::Served {
        servers: Vec::new(),
    };
    let misfit = step(
        Some(state),
        &At {
            time: TIME,
            event: &served,
        },
    )
    .unwrap_err();
    assert_eq!((misfit.event, misfit.phase), ("served", "planning"));
    assert!(
        step(
            None,
            &At {
                time: TIME,
                event: &served
            }
        )
        .is_err()
    );
    for phase in Phase::ALL {
        let text = serde_json::to_value(phase).unwrap();
        assert_eq!(text, phase.as_str());
    }
    let name = |event: &Event| serde_json::to_value(event).unwrap()["event"].clone();
    assert_eq!(name(&served), served.name());
    assert_eq!(name(&begun()), "begun");
}

proptest! {
    #[test]
    fn whatever_happens_nothing_is_sent_twice_unread(
        luck in prop::collection::vec((0u8..5, 0u8..40), 1..80),
        full: bool,
    ) {
        let course = if full { everything() } else { Course::default() };
        let mut events = vec![begun()];
        let (mut state, mut action) = taken(None, &events[0]);
        let mut unread = false;
        for (luck, interrupt) in luck {
            let event = match (interrupt, &action) {
                _ if state.is_over() => break,
                (0, _) => Event::RollbackAsked { by: None, reason: None },
                (1, _) => Event::LockLost { why: "gone".into() },
                (2, _) | (_, Action::Rest) => Event::Resumed { by: None },
                _ => answer(&state, &action, luck, &course),
            };
            match &event {
                Event::Sending { attempt } => {
                    prop_assert!(!unread, "sent again unread");
                    prop_assert!(*attempt <= MAX_ATTEMPTS + 1);
                    unread = true;
                }
                Event::Settled { left, .. } => unread = matches!(left, Left::Unread | Left::Conflict),
                Event::Accepted { .. } | Event::NotSent { .. } => unread = false,
                _ => {}
            }
            let before = state.clone();
            (state, action) = taken(Some(state), &event);
            events.push(event);
            // Before the first attempt nothing can end but well known ends, and after it nothing silently.
            if let Some(End::Refused | End::Failed) = state.end {
                prop_assert!(!state.touched && !before.doubt);
            }
            if state.end == Some(End::Done) {
                prop_assert!(state.finish.served.is_some() && state.finish.converged.is_some());
            }
        }
        let at = |event| At { time: TIME, event };
        let again = replay(events.iter().map(at)).unwrap();
        prop_assert_eq!(again, Some(state));
    }
}
