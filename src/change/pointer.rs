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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_back_from_its_segment() {
        for name in ["", "a", "a/b", "~", "~1", "a~0/b~"] {
            assert_eq!(unescaped(&escaped(name)), name);
            assert_eq!(names(&format!("/x/{}", escaped(name))).collect::<Vec<_>>(), ["x", name]);
        }
        assert_eq!(names("").count(), 0);
    }
}
