//! Versions whose record is too large: the history knows that they existed, and claims nothing about their content.

use serde_json::{Value, json};

use super::{ALL, catch_up, put};
use crate::support::TestApp;

/// Nearly 2 MB of incompressible text: the document fits into the service, but its record does not.
fn noise() -> String {
    let mut state: u64 = 7;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Printable characters that need no escape.
        let place = u8::try_from((state >> 33) % 91).unwrap();
        let letter = b'#' + place;
        char::from(if letter == b'\\' { b'!' } else { letter })
    };
    (0..2_096_900).map(|_| next()).collect()
}

#[tokio::test]
async fn nothing_is_claimed_about_a_version_that_was_too_large() {
    let app = TestApp::start().await;
    catch_up(&app, &ALL).await;
    for id in ["over", "live"] {
        put(&app, id, 1).await;
        app.put(json!({"id": id, "pk": format!("key-{id}"), "n": 2, "noise": noise()})).await;
    }
    put(&app, "over", 3).await;
    let refused = app.run(&[&["follow", "--until-caught-up"], &ALL[..]].concat()).await;
    assert_eq!(refused.code, 3, "{refused:?}");
    // A letter stores how its item arrived, so a replay claims no more than the original reader could.
    let letters = std::fs::read_dir(app.folder.path().join(".dead-letters")).unwrap();
    for letter in letters {
        let letter: Value = serde_json::from_slice(&std::fs::read(letter.unwrap().path()).unwrap()).unwrap();
        assert_eq!(letter["via"], "follow", "{}", letter["reason"]);
    }
    let versions = app.versions("over").await;
    assert_eq!(versions.iter().map(|v| v.is_absent()).collect::<Vec<_>>(), [false, true, false]);
    let absent = versions[1].record_id.as_str();

    // The id and the key of its record are not the document.
    let shown = app.run(&["show", "--id", "over", "--version", absent]).await;
    assert_eq!((shown.code, shown.stdout.as_str()), (1, ""), "{shown:?}");
    assert!(shown.stderr.contains("too large for the history"), "{shown:?}");
    let listed = app.run(&["history", "--id", "over", "--format", "json"]).await.json();
    let rows = listed["versions"].as_array().or(listed.as_array()).unwrap();
    assert!(rows.iter().all(|row| row["removed"].is_null() || row["removed"] == json!([])), "{listed}");
    let compared = app.run(&["diff", "--id", "over", "--version", absent]).await;
    assert_ne!(compared.code, 0, "{compared:?}");
    // The live document is available.
    let shown = app.run(&["show", "--id", "live"]).await;
    assert!(shown.code == 0 && shown.stdout.contains("\"n\":2,\"noise\":"), "{}", shown.stderr);

    // Whether it met a condition is unknown, and no write is claimed to have made it true.
    let found = app.run(&["find", "--when", "!has(doc.n)", "--format", "json"]).await;
    assert!(!found.stdout.contains(absent), "{found:?}");
    for predicate in ["NOT IS_DEFINED(c.n)", "c.n = 2"] {
        let found = app.run(&["history", "--where", predicate, "--format", "json"]).await;
        assert_eq!(found.code, 3, "{}", found.stderr);
        assert!(found.stderr.contains("which was too large"), "{}", found.stderr);
    }
}
