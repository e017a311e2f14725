//! The order in which a stream's events are folded: those of the versions one after the other, and late ones in between or behind them.
use crate::log::scan::Late;
use crate::log::scan::Opened;
use crate::log::statements::column;
use crate::pg::error::failure::Result;
use crate::pg::process::memory::List;
use crate::pg::process::session::Db;
use crate::pg::query::row::Row;
use eventstream_core::word::Order;
use std::ops::ControlFlow;

/// What is still to be folded of a stream, in order.
pub struct Walk {
    next: i64,
    to: i64,
    /// Those to be folded out of the order of versions, in their order.
    lates: List<Late>,
    order: Order,
    lates_done: usize,
    /// Up to this version no event is left out; 0: that is not known.
    pub(super) whole_to: i64,
}

impl Walk {
    /// From the version after `after` to `prefix`, and `lates`. In the order of versions these lie behind `prefix`; in the order of
    /// valid time they are all late events after `after`.
    pub fn new(order: Order, after: i64, prefix: i64, mut lates: List<Late>) -> Self {
        match order {
            Order::Version => lates.sort_unstable_by_key(|late| late.version),
            Order::OccurredAt => lates.sort_unstable_by_key(|late| (late.occurred_at, late.version)),
        }
        let whole_to = if prefix > after { prefix } else { 0 };
        Self { next: after + 1, to: prefix, lates, order, lates_done: 0, whole_to }
    }

    pub fn is_done(&self) -> bool {
        self.next > self.to && self.lates_done == self.lates.len()
    }

    /// Gives events to `each` until it breaks, or until it came through `most` versions; the next call goes on behind the last one given. Fails
    /// where a version is missing: no state is made over a gap, whatever made it.
    pub fn go(
        &mut self,
        db: &Db,
        opened: &Opened,
        most: i64,
        each: &mut dyn FnMut(&Row) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let by_time = self.order == Order::OccurredAt;
        // The index looks at all of a page's entries that are within the bounds: at no more of them than are wanted.
        let (from, to) = (self.next, self.to.min(self.next.saturating_add(most) - 1));
        let mut is_broken = false;
        opened.versions(db, from, to, |row| {
            let version = row.int8(column::VERSION)?;
            if version != self.next {
                return Err(opened.gap(db, self.next));
            }
            if by_time {
                let occurred_at = row.int8(column::OCCURRED_AT)?;
                if occurred_at < row.int8(column::MAX_OCCURRED_AT)? {
                    self.next = version + 1;
                    return Ok(ControlFlow::Continue(()));
                }
                if self.fold_lates(db, opened, occurred_at, each)?.is_break() {
                    is_broken = true;
                    return Ok(ControlFlow::Break(()));
                }
            }
            self.next = version + 1;
            let flow = each(row)?;
            is_broken = flow.is_break();
            Ok(flow)
        })?;
        if !is_broken {
            if self.next <= to {
                return Err(opened.gap(db, self.next));
            }
            if to == self.to {
                let _ = self.fold_lates(db, opened, i64::MAX, each)?;
            }
        }
        Ok(())
    }

    /// Gives the late events that occurred before `occurred_at`.
    fn fold_lates(
        &mut self,
        db: &Db,
        opened: &Opened,
        occurred_at: i64,
        each: &mut dyn FnMut(&Row) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        while let Some(late) = self.lates.get(self.lates_done).filter(|late| late.occurred_at < occurred_at) {
            self.lates_done += 1;
            match opened.event(db, late.version, &mut *each)? {
                Some(ControlFlow::Continue(())) => {}
                Some(ControlFlow::Break(())) => return Ok(ControlFlow::Break(())),
                None => return Err(opened.gap(db, late.version)),
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
