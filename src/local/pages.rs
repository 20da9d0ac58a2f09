//! Result pages of queries and of the plain read feed.
//!
//! A result is computed once, and its pages are served from a small cache. When an entry was evicted, the result is
//! computed again and the pages already read are skipped.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::Method;
use bytes::Bytes;

use super::container::{LocalContainer, RangeError};
use super::feed::{PAGE_BYTES, envelope, gone};
use super::keys::{Epk, EpkRange};
use super::log::{Document, WriteLog};
use super::message::{Ask, GatewayAnswer, Headers, header};
use super::sql::{self, Statement};

const MAX_RESULTS: usize = 64;
const MAX_BYTES: usize = 256 * 1024 * 1024;
/// The prefix of this module's continuation tokens.
const TOKEN: &str = "local-page";

/// The cache.
#[derive(Debug, Default)]
pub(super) struct PageCache {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    next_id: u64,
    bytes: usize,
    /// The most recently used result comes last.
    results: VecDeque<Arc<ResultSet>>,
}

/// A complete result.
#[derive(Debug)]
struct ResultSet {
    id: u64,
    /// The range that it was computed for.
    scope: EpkRange,
    rid: String,
    headers: Headers,
    items: Vec<Bytes>,
    bytes: usize,
}

/// A continuation token: the result, the number of items already read, and the range.
struct Token {
    id: u64,
    offset: usize,
    scope: EpkRange,
}

impl Token {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(TOKEN)?.strip_prefix(':')?.split(':');
        let token = Self {
            id: parts.next()?.parse().ok()?,
            offset: parts.next()?.parse().ok()?,
            scope: EpkRange { min: Epk::parse(parts.next()?)?, max: Epk::parse(parts.next()?)? },
        };
        parts.next().is_none().then_some(token)
    }

    fn to_text(&self) -> String {
        format!("{TOKEN}:{}:{}:{}:{}", self.id, self.offset, self.scope.min.as_hex(), self.scope.max.as_hex())
    }
}

impl PageCache {
    /// Answers a query or a read of all documents.
    pub async fn read(&self, container: &LocalContainer, ask: &Ask) -> GatewayAnswer {
        let scope = match container.range_of(ask) {
            Ok(scope) => scope,
            Err(RangeError::Gone) => return gone(),
            Err(RangeError::Invalid(message)) => return GatewayAnswer::bad_request(message),
        };
        let token = match ask.headers.get(header::CONTINUATION).filter(|text| !text.is_empty()) {
            None => None,
            // A token in the service's format comes from another account; nothing was read here before it.
            Some(text) if text.starts_with("-RID:") || text.starts_with("+RID:") => None,
            Some(text) => match Token::parse(text) {
                Some(token) => Some(token),
                None => return GatewayAnswer::bad_request("The continuation token is not one of this account"),
            },
        };
        let cached = token.as_ref().and_then(|token| self.take(token.id)).filter(|found| found.scope == scope);
        let (result, offset) = match (cached, token) {
            (Some(result), Some(token)) => (result, token.offset),
            (_, token) => {
                let log = container.read().await;
                let result = match self.evaluate(container, &log, ask, scope.clone()).await {
                    Ok(result) => result,
                    Err(answer) => return *answer,
                };
                let offset = match token {
                    None => 0,
                    Some(token) if token.scope == result.scope => token.offset,
                    Some(token) => match self.offset_after_split(container, &log, ask, token, &result).await {
                        Ok(offset) => offset,
                        Err(answer) => return *answer,
                    },
                };
                drop(log);
                (Arc::new(result), offset)
            }
        };
        self.page(result, offset, ask.max_items())
    }

    /// Returns how many items of `result` were already read when the token comes from the partition before its split.
    async fn offset_after_split(
        &self,
        container: &LocalContainer,
        log: &WriteLog,
        ask: &Ask,
        token: Token,
        result: &ResultSet,
    ) -> Result<usize, Box<GatewayAnswer>> {
        // Every SDK rewrites an ordered query so that its rows contain `_rid` and `orderByItems`.
        let is_ordered = memchr::memmem::find(&ask.body, b"orderByItems").is_some();
        let range = if is_ordered {
            token.scope
        } else if token.scope.min < result.scope.min {
            EpkRange { min: token.scope.min, max: result.scope.min.clone() }
        } else {
            return Ok(token.offset);
        };
        let other = self.evaluate(container, log, ask, range).await?;
        if is_ordered {
            // The rows of both halves were interleaved, so find out which rows of this half were among those read.
            let read: HashSet<&Bytes> = other.items.iter().take(token.offset).collect();
            return Ok(result.items.iter().take_while(|item| read.contains(*item)).count());
        }
        // In key order, the whole lower half comes first.
        Ok(token.offset.saturating_sub(other.items.len()))
    }

    async fn evaluate(
        &self,
        container: &LocalContainer,
        log: &WriteLog,
        ask: &Ask,
        scope: EpkRange,
    ) -> Result<ResultSet, Box<GatewayAnswer>> {
        let text = |(_, document): (_, &Document)| document.text.clone();
        let items = if ask.method == Method::GET {
            log.documents_in(&scope).into_iter().map(text).collect()
        } else {
            let statement = Statement::read(&ask.body).map_err(|error| Box::new(error.into_answer()))?;
            let documents =
                if statement.is_ordered() { log.documents_by_age(&scope) } else { log.documents_in(&scope) };
            let texts: Vec<Bytes> = documents.into_iter().map(text).collect();
            let computed = container.computed();
            let work = move || sql::run(&statement, &computed, texts.into_iter());
            let found = if container.clock().is_simulated() {
                // In one thread, blocking affects nobody.
                work()
            } else {
                // Sorting and filtering all documents is pure computation, and must not block other requests.
                tokio::task::spawn_blocking(work).await.map_err(|_| {
                    Box::new(GatewayAnswer::error(500, None, "InternalServerError", "the query was interrupted"))
                })?
            };
            found.map_err(|error| Box::new(error.into_answer()))?
        };
        let id = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.next_id += 1;
            kept.next_id
        };
        let bytes = items.iter().map(Bytes::len).sum();
        let headers = container.answer_headers(&scope);
        Ok(ResultSet { id, scope, rid: container.rid().to_owned(), headers, items, bytes })
    }

    fn page(&self, result: Arc<ResultSet>, offset: usize, limit: Option<usize>) -> GatewayAnswer {
        let offset = offset.min(result.items.len());
        let limit = limit.unwrap_or(usize::MAX);
        let mut bytes = 0;
        let fitting = result.items[offset..].iter().take(limit).take_while(|item| {
            let first = bytes == 0;
            bytes += item.len() + 1;
            first || bytes <= PAGE_BYTES
        });
        let end = offset + fitting.count();
        let items = result.items[offset..end].iter().map(AsRef::as_ref);
        let body = envelope(&result.rid, items);
        let mut answer = GatewayAnswer { status: 200, headers: result.headers.clone(), body: body.into() };
        answer.headers.set("content-type", "application/json");
        answer.headers.set(header::ITEM_COUNT, (end - offset).to_string());
        answer.headers.remove(header::CONTINUATION);
        if end < result.items.len() {
            let token = Token { id: result.id, offset: end, scope: result.scope.clone() };
            answer.headers.set(header::CONTINUATION, token.to_text());
            self.keep(result);
        }
        answer
    }

    fn take(&self, id: u64) -> Option<Arc<ResultSet>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let index = kept.results.iter().position(|result| result.id == id)?;
        let result = kept.results.remove(index)?;
        kept.bytes -= result.bytes;
        Some(result)
    }

    fn keep(&self, result: Arc<ResultSet>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += result.bytes;
        kept.results.push_back(result);
        while kept.results.len() > 1 && (kept.results.len() > MAX_RESULTS || kept.bytes > MAX_BYTES) {
            if let Some(oldest) = kept.results.pop_front() {
                kept.bytes -= oldest.bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_a_foreign_one_is_refused() {
        let text = Token { id: 3, offset: 40, scope: EpkRange::full() }.to_text();
        let token = Token::parse(&text).unwrap();
        assert_eq!((token.id, token.offset, token.scope), (3, 40, EpkRange::full()));
        for foreign in ["", "local-page:1", "local-page:1:2:zz:FF", "{\"kind\":\"x\"}", "local-page:1:2:::"] {
            assert!(Token::parse(foreign).is_none(), "{foreign}");
        }
    }
}
