//! The segments of a JSON Pointer (RFC 6901).

/// A member's name as a segment.
pub fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The name that a segment stands for.
pub fn unescaped(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

/// The names that a pointer leads through.
pub fn names(pointer: &str) -> impl Iterator<Item = String> + '_ {
    pointer.split('/').skip(1).map(unescaped)
}

/// The array index that a segment stands for: digits without a sign or leading zeros, as the RFC requires.
pub fn index(name: &str) -> Option<usize> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
    if is_plain { name.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_has_one_name() {
        assert_eq!(["0", "7", "10"].map(index), [Some(0), Some(7), Some(10)]);
        assert_eq!(["", "01", "00", "+1", "-1", "1.0", " 1", "99999999999999999999"].map(index), [None; 8]);
    }

    #[test]
    fn a_name_comes_back_from_its_segment() {
        for name in ["", "a", "a/b", "~", "~1", "a~0/b~"] {
            assert_eq!(unescaped(&escaped(name)), name);
            assert_eq!(names(&format!("/x/{}", escaped(name))).collect::<Vec<_>>(), ["x", name]);
        }
        assert_eq!(names("").count(), 0);
    }
}
