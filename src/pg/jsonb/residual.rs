//! What of a document is shown, as a document: crates/core says which bytes.
use super::Jsonb;
use crate::pg::error::failure::{Result, catch};
use crate::pg::ffi;
use eventstream_core::error::Error;
use eventstream_core::protect::{self, Mask, Stray};
use pgrx::pg_sys;
use std::marker::PhantomData;
use std::{ptr, slice};

impl<'a> Jsonb<'a> {
    /// The residual, in the current memory context; None where nothing that is protected is there. And the first value that stands in the way of a pointer.
    pub fn residual(self, mask: &Mask) -> Result<(Option<Self>, Option<Stray>)> {
        let (root, size) = (self.root(), self.size() - pg_sys::VARHDRSZ);
        // SAFETY: a whole, detoasted jsonb: so many bytes are there behind its length.
        let bytes = unsafe { slice::from_raw_parts(root.cast::<u8>(), size) };
        let residual = protect::residual(bytes, mask)
            .ok_or_else(|| Error::Internal { what: "a document ends before it is complete".into() })?;
        let Some(shown) = residual.document else { return Ok((None, residual.stray)) };
        let (from, size) = (shown.as_ptr(), shown.len());
        // SAFETY: palloc gives as many bytes as are written; the length is that of all of it. Nothing in here is to be dropped.
        let pointer = catch(|| unsafe {
            let made = ffi::palloc(size + pg_sys::VARHDRSZ).cast::<u8>();
            pgrx::varlena::set_varsize_4b(made.cast(), (size + pg_sys::VARHDRSZ) as i32);
            ptr::copy_nonoverlapping(from, made.add(pg_sys::VARHDRSZ), size);
            made.cast::<pg_sys::Jsonb>()
        })?;
        Ok((Some(Self { pointer, _memory: PhantomData }), residual.stray))
    }
}
