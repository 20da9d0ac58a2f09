//! 128-bit decimal numbers: their text, and whether another type holds the same number.

use std::fmt::Write as _;

/// The largest number that the digits can form.
const MAX: u128 = 9_999_999_999_999_999_999_999_999_999_999_999;
const BIAS: i32 = 6176;

/// The value of a decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecimalValue {
    NaN,
    Infinity { negative: bool },
    Finite { negative: bool, digits: u128, exponent: i32 },
}

impl DecimalValue {
    /// Decodes sixteen bytes, and says whether they are the only encoding of that value.
    pub(super) fn of(bytes: &[u8]) -> Option<(Self, bool)> {
        let bits = u128::from_le_bytes(*bytes.first_chunk()?);
        let negative = bits >> 127 == 1;
        Some(match bits >> 122 & 0b11111 {
            0b11111 => (Self::NaN, bits == 0b11111 << 122),
            0b11110 => (Self::Infinity { negative }, bits << 6 == 0),
            // With these two bits the digits would exceed the largest number; the format counts all of them as zero.
            top if top >> 3 == 0b11 => {
                let exponent = i32::try_from(bits >> 111 & 0x3FFF).ok()? - BIAS;
                (Self::Finite { negative, digits: 0, exponent }, false)
            }
            _ => {
                let (digits, exponent) = (bits & ((1 << 113) - 1), i32::try_from(bits >> 113 & 0x3FFF).ok()? - BIAS);
                let digits = if digits > MAX { (0, false) } else { (digits, true) };
                (Self::Finite { negative, digits: digits.0, exponent }, digits.1)
            }
        })
    }

    /// The text that the specification of the type prescribes.
    pub(super) fn push(self, out: &mut String) {
        let (negative, digits, exponent) = match self {
            Self::NaN => return out.push_str("NaN"),
            Self::Infinity { negative } => return out.push_str(if negative { "-Infinity" } else { "Infinity" }),
            Self::Finite { negative, digits, exponent } => (negative, digits.to_string(), exponent),
        };
        if negative {
            out.push('-');
        }
        let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
        let first = exponent + count - 1;
        if exponent > 0 || first < -6 {
            let (head, tail) = digits.split_at(1);
            let point = if tail.is_empty() { "" } else { "." };
            let _ = write!(out, "{head}{point}{tail}E{first:+}");
            return;
        }
        let fraction = usize::try_from(-exponent).unwrap_or(0);
        match digits.len().checked_sub(fraction) {
            _ if fraction == 0 => out.push_str(&digits),
            Some(whole) if whole > 0 => {
                let (whole, fraction) = digits.split_at(whole);
                let _ = write!(out, "{whole}.{fraction}");
            }
            _ => {
                let _ = write!(out, "0.{digits:0>fraction$}");
            }
        }
    }

    /// The same number with as few digits as possible.
    pub(super) fn shortest(self) -> Self {
        match self {
            Self::Finite { digits: 0, .. } => Self::Finite { negative: false, digits: 0, exponent: 0 },
            Self::Finite { negative, mut digits, mut exponent } => {
                while digits.is_multiple_of(10) {
                    (digits, exponent) = (digits / 10, exponent + 1);
                }
                Self::Finite { negative, digits, exponent }
            }
            other => other,
        }
    }

    /// The integer that it equals exactly.
    pub(super) fn as_i64(self) -> Option<i64> {
        let Self::Finite { negative, digits, exponent } = self.shortest() else { return None };
        let size = i128::try_from(digits.checked_mul(10_u128.checked_pow(u32::try_from(exponent).ok()?)?)?).ok()?;
        i64::try_from(if negative { -size } else { size }).ok()
    }

    /// The floating point number that it equals exactly.
    pub(super) fn as_f64(self) -> Option<f64> {
        let Self::Finite { negative, digits, exponent } = self.shortest() else { return None };
        if digits == 0 {
            return Some(0.0);
        }
        // A power of ten is a power of five times a power of two. The fives have to fit into the digits, the twos are
        // free.
        let fives = 5_u128.checked_pow(exponent.unsigned_abs());
        let whole = match exponent >= 0 {
            true => digits.checked_mul(fives?)?,
            false => fives.filter(|fives| digits.is_multiple_of(*fives)).map(|fives| digits / fives)?,
        };
        let twos = i32::try_from(whole.trailing_zeros()).ok()?;
        let odd = u64::try_from(whole >> twos).ok().filter(|odd| *odd < 1 << 53)?;
        // At most 2^53 times 2^150 and at least 2^-50: far from either end of the type.
        let size = odd as f64 * 2_f64.powi(twos + exponent);
        Some(if negative { -size } else { size })
    }
}
