//! The host's `traceparent`: which trace an invocation belongs to (W3C Trace Context, level 1).

/// The position of an invocation in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace, never zero.
    pub trace: u128,
    /// The host's span, never zero.
    pub parent: u64,
    /// The flags as sent; bit 0: the host records the trace.
    pub flags: u8,
}

impl TraceContext {
    /// Parses a `traceparent` header; `None` when it is malformed, since the standard demands that it is then ignored.
    /// <https://www.w3.org/TR/trace-context/#traceparent-header>
    pub fn parse(header: &str) -> Option<Self> {
        let header = header.trim_matches([' ', '\t']);
        let (version, rest) = (header.get(..2)?, header.get(2..)?);
        // Version ff is forbidden; a later version may have more parts after the known ones.
        let ends = |at: &str| at.is_empty() || (version != "00" && at.starts_with('-'));
        let [trace, parent, flags] = [rest.get(..33)?, rest.get(33..50)?, rest.get(50..53)?];
        if version == "ff" || !is_hex(version) || !ends(rest.get(53..)?) {
            return None;
        }
        let part = |text: &'_ str| text.strip_prefix('-').filter(|digits| is_hex(digits)).map(str::to_owned);
        let context = Self {
            trace: u128::from_str_radix(&part(trace)?, 16).ok()?,
            parent: u64::from_str_radix(&part(parent)?, 16).ok()?,
            flags: u8::from_str_radix(&part(flags)?, 16).ok()?,
        };
        (context.trace != 0 && context.parent != 0).then_some(context)
    }

    /// The trace's id as it is written everywhere: 32 lower-case digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

/// Only lower-case digits are legal.
fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_standards_example_is_read() {
        let context = TraceContext::parse(GOOD).unwrap();
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((context.parent, context.flags), (0x00f0_67aa_0ba9_02b7, 1));
        let later = format!("cc{}-what-comes", &GOOD[2..]);
        assert_eq!(TraceContext::parse(&later), Some(context), "a later version");
    }

    #[test]
    fn what_is_no_traceparent_is_ignored() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-0f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_header_whatever_makes_it_panic(text in any::<String>()) {
            let _ = TraceContext::parse(&text);
        }
    }
}
