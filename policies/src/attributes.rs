/// What is known of a client beyond its identity: token claims, certificate fields, groups' names.
///
/// A name may have several values. Names are lower case and dotted: `cert.cn`, `cert.san.dns`,
/// `claims.channel`. Whatever the authentication method, everything lands in this one map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    sorted: Vec<(Box<str>, Box<str>)>,
}

impl Attributes {
    /// Adds one more value under `name`.
    pub fn add(&mut self, name: &str, value: &str) {
        let at = self.sorted.partition_point(|(known, _)| known.as_ref() <= name);
        self.sorted.insert(at, (name.into(), value.into()));
    }

    /// All values of `name`, in the order in which they were added.
    pub fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let from = self.sorted.partition_point(|(known, _)| known.as_ref() < name);
        let count = self.sorted[from..].iter().take_while(|(known, _)| known.as_ref() == name).count();
        self.sorted[from..from + count].iter().map(|(_, value)| value.as_ref())
    }

    /// All names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sorted.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_order_under_one_name() {
        let mut attributes = Attributes::default();
        for (name, value) in [("cert.san.dns", "b"), ("cert.cn", "dev"), ("cert.san.dns", "a")] {
            attributes.add(name, value);
        }
        assert_eq!(attributes.values("cert.san.dns").collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(attributes.values("cert.cn").collect::<Vec<_>>(), ["dev"]);
        assert_eq!(attributes.values("cert").count(), 0);
    }
}
