//! An option with the value `auto` beside those of an enum.

use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// A value of `T`, or `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Auto<T>(Option<T>);

impl<T> Auto<T> {
    /// None for `auto`.
    pub(super) fn chosen(self) -> Option<T> {
        self.0
    }
}

/// Parses `auto` and the values of `T`, and lists them in the help.
pub(super) fn parser<T>() -> impl TypedValueParser<Value = Auto<T>>
where
    T: ValueEnum + Clone + Send + Sync + 'static,
{
    let values = T::value_variants().iter();
    let values = values.filter_map(ValueEnum::to_possible_value);
    let auto = std::iter::once(PossibleValue::new("auto"));
    // One that is no value of T is `auto`: the list has no others.
    PossibleValuesParser::new(auto.chain(values)).map(|text| Auto(T::from_str(&text, false).ok()))
}
