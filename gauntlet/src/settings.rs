//! The macro that states a component's settings once: name, meaning, and the value in each profile.
//!
//! It makes two structs: the resolved settings, and a patch in which every field is optional and unknown keys are
//! refused, as a manifest writes it. A default therefore stands in one place, beside the rule it belongs to.

macro_rules! settings {
    (
        $(#[$doc:meta])*
        $name:ident, $patch:ident {
            $($(#[$field_doc:meta])* $field:ident: $ty:ty = $paper:expr, $reference:expr;)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $ty,)*
        }

        #[doc = concat!("What a manifest may change of [`", stringify!($name), "`]; unknown keys are errors.")]
        #[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $patch {
            $($(#[$field_doc])* pub $field: Option<$ty>,)*
        }

        impl $name {
            /// The values of a profile.
            pub fn of(profile: crate::rules::Profile) -> Self {
                match profile {
                    crate::rules::Profile::Paper => Self { $($field: $paper,)* },
                    crate::rules::Profile::Reference2026 => Self { $($field: $reference,)* },
                }
            }

            /// The same values with those of `patch` in place.
            pub fn patched(self, patch: $patch) -> Self {
                Self { $($field: patch.$field.unwrap_or(self.$field),)* }
            }
        }
    };
}

pub(crate) use settings;
