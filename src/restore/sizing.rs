//! Estimates what capture will cost before there is anything to measure, from published charges and a few stated
//! assumptions. A day later, `ru` in the log line `batch stored` tells the truth.

use super::price::{history_item_ru, read_ru, record_bytes, replace_ru};

/// Stored bytes per byte of documents, because of the index. Assumed.
const STORED: f64 = 1.1;
const DAY: f64 = 86_400.0;
/// Hours in a month, as the service bills it.
const MONTH: f64 = 730.0;
/// How many times the fixed rate autoscale costs, for an account with one write region.
const AUTOSCALE_RATE: f64 = 1.5;
/// The service's minimum: fixed and autoscale RU/s of a container, and RU/s per stored GB for either.
const LEAST_FIXED: f64 = 400.0;
const LEAST_AUTOSCALE: f64 = 1000.0;
const FIXED_A_GB: f64 = 1.0;
const AUTOSCALE_A_GB: f64 = 10.0;
/// One physical partition serves at most this many RU/s and GB.
const PARTITION: (f64, f64) = (10_000.0, 50.0);

/// The load of a container.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Versions captured per day.
    pub versions_a_day: f64,
    /// Bytes of a document.
    pub bytes: usize,
    /// Index paths of the history beyond those of `provision`.
    pub index_paths: u32,
    /// Days that versions are kept.
    pub days: f64,
    /// Share of the documents that is read again for fidelity, 0 to 1.
    pub reread: f64,
    /// The busiest second, as a multiple of the average.
    pub peak: f64,
    /// Documents of the restore to be priced.
    pub restored: u64,
}

/// Prices, in any currency; throughput and storage as they are billed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    /// 100 RU/s, provisioned, per hour.
    pub hundred_ru_hour: f64,
    /// A GB per month.
    pub gb_month: f64,
}

/// The estimate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sizing {
    /// Bytes of a record.
    pub record_bytes: usize,
    /// RU in the history for each version.
    pub write_ru: f64,
    /// RU in the source for each version, for re-reads.
    pub reread_ru: f64,
    /// RU/s in the history, on average.
    pub average: f64,
    /// RU/s in the history, in the busiest second.
    pub busiest: f64,
    /// Additional RU/s in the source, in the busiest second.
    pub source_busiest: f64,
    /// The number of records, once the first ones have reached their maximum age.
    pub records: f64,
    /// GB stored then, index included.
    pub gigabytes: f64,
    /// Fixed throughput that suffices for the busiest second, RU/s.
    pub fixed: f64,
    /// Autoscale maximum that suffices, RU/s.
    pub autoscale: f64,
    /// The minimum number of physical partitions of the history.
    pub partitions: f64,
    /// RU of the restore.
    pub restore_ru: f64,
}

/// The cost per month.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// With the fixed throughput.
    pub fixed: f64,
    /// With autoscale at its lowest: at the average, and never below a tenth of the maximum.
    pub autoscale: f64,
    /// The stored bytes once versions reach their maximum age.
    pub storage: f64,
}

impl Load {
    /// The calculation.
    pub fn size(&self) -> Sizing {
        let record_bytes = record_bytes(self.bytes);
        let write = history_item_ru(record_bytes, self.index_paths as usize);
        let reread = self.reread * read_ru(self.bytes);
        let average = self.versions_a_day * write / DAY;
        let busiest = average * self.peak;
        let records = self.versions_a_day * self.days;
        let gigabytes = records * record_bytes as f64 * STORED / 1e9;
        let up = |value: f64, step: f64| (value / step).ceil() * step;
        Sizing {
            record_bytes,
            write_ru: write,
            reread_ru: reread,
            average,
            busiest,
            source_busiest: self.versions_a_day * reread / DAY * self.peak,
            records,
            gigabytes,
            fixed: up(busiest.max(LEAST_FIXED).max(gigabytes * FIXED_A_GB), 100.0),
            autoscale: up(busiest.max(LEAST_AUTOSCALE).max(gigabytes * AUTOSCALE_A_GB), 1000.0),
            partitions: (busiest / PARTITION.0).max(gigabytes / PARTITION.1).ceil().max(1.0),
            // As a plan estimates it, without the values that the source indexes: the version is read, and the live
            // document is read and replaced.
            restore_ru: self.restored as f64
                * (read_ru(record_bytes) + read_ru(self.bytes) + replace_ru(self.bytes, 0)),
        }
    }
}

impl Sizing {
    /// The cost per month.
    pub fn cost(&self, prices: Prices) -> Cost {
        let hours = |ru: f64| ru / 100.0 * prices.hundred_ru_hour * MONTH;
        Cost {
            fixed: hours(self.fixed),
            autoscale: hours(self.average.max(self.autoscale / 10.0)) * AUTOSCALE_RATE,
            storage: self.gigabytes * prices.gb_month,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load {
        versions_a_day: 86_400.0,
        bytes: 1024,
        index_paths: 0,
        days: 30.0,
        reread: 0.0,
        peak: 5.0,
        restored: 1000,
    };

    #[test]
    fn a_kilobyte_is_its_record_s_size_and_fourteen_terms() {
        let sizing = LOAD.size();
        // 300 of the 1,024 bytes from 4.95 RU to 6.29, and 2.8 for the index.
        let write = 4.95 + 1.34 * 300.0 / 1024.0 + 2.8;
        assert!((sizing.write_ru - write).abs() < 1e-9);
        assert!((sizing.average - write).abs() < 1e-9 && (sizing.busiest - 5.0 * write).abs() < 1e-9);
        assert_eq!((sizing.fixed, sizing.autoscale, sizing.partitions), (400.0, 1000.0, 1.0), "the service's least");
        assert!((sizing.gigabytes - 2_592_000.0 * 1324.0 * 1.1 / 1e9).abs() < 1e-9);
    }

    #[test]
    fn more_of_anything_never_costs_less() {
        let base = LOAD.size();
        for more in [
            Load { versions_a_day: 1e8, ..LOAD },
            Load { bytes: 100_000, ..LOAD },
            Load { index_paths: 9, ..LOAD },
            Load { days: 3650.0, ..LOAD },
            Load { reread: 0.5, ..LOAD },
            Load { peak: 100.0, ..LOAD },
            Load { restored: 100_000, ..LOAD },
        ] {
            let sizing = more.size();
            assert_ne!(sizing, base);
            for (a, b) in [
                (sizing.write_ru, base.write_ru),
                (sizing.busiest, base.busiest),
                (sizing.source_busiest, base.source_busiest),
                (sizing.gigabytes, base.gigabytes),
                (sizing.fixed, base.fixed),
                (sizing.autoscale, base.autoscale),
                (sizing.partitions, base.partitions),
                (sizing.restore_ru, base.restore_ru),
            ] {
                assert!(a >= b, "{more:?}");
            }
        }
    }

    #[test]
    fn storage_raises_the_least_throughput() {
        let sizing = Load { days: 3650.0, versions_a_day: 864_000.0, ..LOAD }.size();
        assert!(sizing.gigabytes > 4500.0 && sizing.fixed >= 4500.0 && sizing.autoscale >= 45_000.0);
        assert!(sizing.partitions >= 90.0);
    }

    #[test]
    fn autoscale_is_billed_at_a_tenth_at_least() {
        let cost = LOAD.size().cost(Prices { hundred_ru_hour: 1.0, gb_month: 0.5 });
        assert!((cost.fixed - 4.0 * 730.0).abs() < 1e-9);
        assert!((cost.autoscale - 1.5 * 730.0).abs() < 1e-9);
    }
}
