//! Replays recorded requests of Microsoft's .NET client.

use std::collections::HashMap;

use base64::Engine as _;
use serde_json::{Value, json};

use super::client::{Answer, Client, DATE, signed};

/// Replays the recorded requests in order. Values that depend on the account (resource ids, ETags, continuation tokens)
/// are replaced by those of this account.
struct Replay {
    client: Client,
    rids: HashMap<String, String>,
    /// The last ETag or continuation token of a path and range, and the values that replace recorded ones.
    last: HashMap<String, String>,
    standing_for: HashMap<String, String>,
}

impl Replay {
    fn place(path: &str, headers: &serde_json::Map<String, Value>) -> String {
        let of = |name: &str| headers.get(name).and_then(Value::as_str).unwrap_or_default();
        format!("{path} {} {}", of("x-ms-documentdb-partitionkeyrangeid"), of("a-im"))
    }

    fn known(&mut self, recorded: &str, place: &str) -> String {
        let last = &self.last;
        let known = self.standing_for.entry(recorded.to_owned());
        known.or_insert_with(|| last.get(place).cloned().unwrap_or_default()).clone()
    }

    async fn play(&mut self, request: &Value) -> Answer {
        let mut path = request["path"].as_str().unwrap().to_owned();
        for (name, rid) in &self.rids {
            path = path.replace(&format!("{{rid of {name}}}"), rid);
        }
        let segments: Vec<String> = path
            .split('/')
            .map(|part| percent_encoding::utf8_percent_encode(part, percent_encoding::NON_ALPHANUMERIC).to_string())
            .collect();
        let recorded = request["headers"].as_object().unwrap();
        let place = Self::place(&path, recorded);
        let mut headers: Vec<(String, String)> = Vec::new();
        for (name, value) in recorded {
            let value = value.as_str().unwrap();
            let value = match name.as_str() {
                "if-none-match" | "if-match" | "x-ms-continuation" => self.known(value, &place),
                _ => value.to_owned(),
            };
            headers.push((name.clone(), value));
        }
        if path == "/" {
            headers.push(("x-ms-date".into(), DATE.into()));
            let key = if request["call"] == "wrong key" { "d3Jvbmc=" } else { self.client.cosmos.key() };
            headers.push(("authorization".into(), signed(key)));
        }
        let mut body = match (&request["json"], request["base64"].as_str()) {
            (Value::Null, None) => Vec::new(),
            (Value::Null, Some(text)) => base64::engine::general_purpose::STANDARD.decode(text).unwrap(),
            (json, _) => json.to_string().into_bytes(),
        };
        if path == "/offers" {
            let mut query = request["json"].clone();
            query["parameters"][0]["value"] = self.rids["items"].as_str().into();
            body = query.to_string().into_bytes();
        }
        let pairs: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let method = request["method"].as_str().unwrap();
        let answer = self.client.send(method, &segments.join("/"), &pairs, body).await;
        if let (Some(id), Some(rid)) = (answer.body["id"].as_str(), answer.body["_rid"].as_str()) {
            self.rids.insert(id.to_owned(), rid.to_owned());
            if method == "POST" {
                self.last.insert(format!("{path}/{id}  "), answer.header("etag").to_owned());
            }
        }
        for name in ["etag", "x-ms-continuation"] {
            if !answer.header(name).is_empty() {
                self.last.insert(place.clone(), answer.header(name).to_owned());
            }
        }
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dotnet_clients_requests_get_the_services_answers() {
    let text = include_str!("../fixtures/dotnet-requests.jsonl");
    let client = Client::start(2).await;
    let mut replay = Replay { client, rids: HashMap::new(), last: HashMap::new(), standing_for: HashMap::new() };
    let mut seen: HashMap<String, Vec<Answer>> = HashMap::new();
    for line in text.lines() {
        let request: Value = serde_json::from_str(line).unwrap();
        let call = request["call"].as_str().unwrap().to_owned();
        let answer = replay.play(&request).await;
        // The recorded status, except for responses that were wrong at that time.
        let is_plan = request["headers"].get("x-ms-cosmos-is-query-plan-request").is_some();
        let wanted = match (call.as_str(), request["base64"].is_string()) {
            (_, true) => 501,
            ("patch conditional no", _) => 412,
            ("linq", _) if is_plan => 200,
            ("delete all by key", _) => 200,
            ("stored procedure", _) => 201,
            ("wrong key", _) => 401,
            _ => request["status_today"].as_u64().unwrap(),
        };
        assert_eq!(u64::from(answer.status), wanted, "{call}: {line}\n{}", answer.body);
        if call == "upserts" {
            for n in 1..60 {
                let parity = if n % 2 == 0 { "even" } else { "odd" };
                let document = json!({"id": format!("u{n}"), "pk": format!("p{n}"), "n": n, "s": parity});
                let headers = [("x-ms-documentdb-is-upsert", "True")];
                let path = request["path"].as_str().unwrap();
                let made = replay.client.send("POST", path, &headers, document.to_string().into_bytes()).await;
                assert_eq!(made.status, 201);
            }
        }
        seen.entry(call).or_default().push(answer);
    }
    // The client stops at once when this cannot be parsed or is empty.
    let configuration = seen["start"][0].body["queryEngineConfiguration"].as_str().unwrap();
    let configuration: Value = serde_json::from_str(configuration).unwrap();
    assert!(configuration["maxSqlQueryInputLength"].as_u64().unwrap() > 0);
    assert_eq!(seen["read item"][0].body["PartitionKeyRanges"].as_array().unwrap().len(), 2);
    assert_eq!(seen["throughput"][1].body["Offers"][0]["content"]["offerThroughput"], 400);
    assert_eq!(seen["patch"][0].body["n"], 7);
    let info = |call: &str| seen[call][0].body["queryInfo"].clone();
    assert_eq!(info("cross sum avg")["aggregates"], json!(["Average"]));
    let counts: Vec<&Value> = seen["cross count"][1..].iter().map(|answer| &answer.documents()[0][0]).collect();
    assert!(counts.iter().all(|count| count.is_null()), "without the rewritten query the counts are plain");
    assert_eq!(info("linq")["orderBy"], json!(["Ascending"]));
    assert_eq!(info("group by")["groupByAliases"], json!(["s", "n"]));
    let distinct: Vec<usize> = seen["distinct"][1..].iter().map(|answer| answer.documents().len()).collect();
    assert!(distinct.iter().all(|count| *count <= 4), "{distinct:?}");
    let many: Vec<&Value> = seen["read many"][1..].iter().flat_map(|answer| answer.documents()).collect();
    assert!(!many.is_empty(), "c[\"pk\"] selects the property");
    assert_eq!(seen["hier prefix query"].last().unwrap().documents().len(), 1);
}
