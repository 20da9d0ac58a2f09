//! Request bodies as the Functions host sends them, one scenario per file in `tests/fixtures`, and the history that the
//! real handler makes of each (the `.snap` next to it).
//!
//! `INSTA_UPDATE=always cargo test recorded` rewrites the snapshots; review the difference before a commit.

use std::path::Path;

use crate::support::TestApp;

#[tokio::test]
async fn every_recorded_payload_becomes_the_history_next_to_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut recorded: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    recorded.sort();
    assert!(recorded.len() >= 5, "{recorded:?}");
    for path in recorded {
        let app = TestApp::start().await;
        let handler = app.handler(&[]).await;
        let body = std::fs::read(&path).unwrap();
        let (status, answer) = handler.post("CaptureChanges", body.clone()).await;
        let said = answer["Logs"][0].as_str().unwrap();
        // The rest of the line, charge and time, differs between runs.
        let mut text = format!("{status}, {}\n", said.split_once(", 0 retries").unwrap().0);
        let history = app.history().await;
        for record in &history {
            text += &format!("{record:#}\n");
        }
        for letter in app.dead_letters() {
            text += &format!("dead letter: {} {}\n", letter["reason"], letter["item"]);
        }
        // The host may deliver it again.
        assert_eq!(handler.post("CaptureChanges", body).await.0, 200);
        assert_eq!(app.history().await, history);
        let name = path.file_stem().unwrap().to_str().unwrap();
        insta::with_settings!({
            snapshot_path => &folder, prepend_module_to_snapshot => false, omit_expression => true,
        }, {
            insta::assert_snapshot!(name, text);
        });
    }
}
