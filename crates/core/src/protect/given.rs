//! A rule as it was given, and what of it another one in its place leaves out.
use super::mask::Mask;
use crate::error::Result;
use crate::rules::Pointer;

/// The arguments of es_protect.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // the fields are what their names say
pub struct Given {
    pub pointers: Option<Vec<String>>,
    pub clear_pointers: Option<Vec<String>>,
    pub metadata_pointers: Vec<String>,
}

impl Given {
    /// What it protects and `now` does not, by pointers or in words: nothing that both protect is among it.
    ///
    /// # Errors
    /// As [`Mask::listed`].
    pub fn uncovered_by(&self, now: &Self) -> Result<Vec<String>> {
        let leads = |text: &String| Pointer::parse(text).unwrap_or_default();
        let listed = |pointers: &[String]| Mask::listed("pointers", pointers);
        let (payload, metadata) = (now.payload()?, listed(&now.metadata_pointers)?);
        let pointers = self.pointers.iter().flatten();
        let mut gone: Vec<String> = pointers.filter(|text| !payload.covers(&leads(text))).cloned().collect();
        match (&self.clear_pointers, &now.clear_pointers) {
            (Some(before), Some(now)) => {
                let before = listed(before)?;
                gone.extend(now.iter().filter(|text| !before.covers(&leads(text))).cloned());
            }
            (Some(_), None) => gone.push("whatever was not clear, but for what is listed now".into()),
            (None, _) => {}
        }
        let hidden = self.metadata_pointers.iter().filter(|text| !metadata.covers(&leads(text)));
        gone.extend(hidden.map(|text| format!("{text} of the metadata")));
        Ok(gone)
    }

    fn payload(&self) -> Result<Mask> {
        match (&self.pointers, &self.clear_pointers) {
            (_, Some(clear)) => Mask::all_but("clear_pointers", clear),
            (pointers, None) => Mask::listed("pointers", pointers.as_deref().unwrap_or_default()),
        }
    }
}
