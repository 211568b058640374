//! How a configuration comes about: the method's preset, a variant of it, a file, flags; each over the one before.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::{Table, TrainConfig, Value};
use crate::Error;

/// A training method and the preset that lists all its keys; the first is the default.
const METHODS: [(&str, &str); 5] = [
    ("core", include_str!("../../../configs/train/core.toml")),
    ("ti", include_str!("../../../configs/train/ti.toml")),
    ("xti", include_str!("../../../configs/train/xti.toml")),
    ("neti", include_str!("../../../configs/train/neti.toml")),
    ("cones", include_str!("../../../configs/train/cones.toml")),
];

/// A method, the name of a variant of its preset, and the keys that differ in it.
const VARIANTS: [(&str, &str, &str); 5] = [
    ("core", "paper-literal", include_str!("../../../configs/train/core-paper-literal.toml")),
    ("core", "official-compat", include_str!("../../../configs/train/core-official-compat.toml")),
    ("core", "fast", include_str!("../../../configs/train/core-fast.toml")),
    ("xti", "core", include_str!("../../../configs/train/xti-core.toml")),
    ("neti", "core", include_str!("../../../configs/train/neti-core.toml")),
];

/// Bytes of a key, more than any has.
const LONGEST_KEY: usize = 100;

/// The table of CoRe's keys, and the variant of other methods that has it.
const CORE: &str = "core";

impl TrainConfig {
    /// The preset of a method as it stands.
    pub(crate) fn preset(method: &str) -> Result<Self, Error> {
        Self::resolve(None, None, Table::from_iter([("method".to_owned(), method.into())]))
    }

    /// Layers a configuration: the method's preset, its variant `preset`, the file, `overrides`. A key that the
    /// method does not have is an error that names the nearest one. A table `[core]` in the file or in `overrides` asks
    /// for the variant `core`, where the method has one.
    pub fn resolve(
        preset: Option<&str>,
        file: Option<&Path>,
        overrides: Table,
    ) -> Result<Self, Error> {
        let from_file = file.map_or(Ok(Table::new()), read)?;
        let method = |table: &Table| table.get("method").and_then(Value::as_str).map(str::to_owned);
        let method = method(&overrides).or_else(|| method(&from_file));
        let method = method.unwrap_or_else(|| METHODS[0].0.to_owned());
        let Some((_, text)) = METHODS.iter().find(|(name, _)| *name == method) else {
            let known: Vec<&str> = METHODS.iter().map(|(name, _)| *name).collect();
            return Err(Error::Usage(format!(
                "method '{method}' is unknown; known: {}",
                known.join(", ")
            )));
        };
        let mut table = embedded(text);
        let variant = match preset.map(|name| variant(&method, name)).transpose()? {
            Some(named) if !named.is_empty() => named,
            _ if [&from_file, &overrides].iter().any(|layer| layer.contains_key(CORE)) => {
                variant(&method, CORE).unwrap_or_default()
            }
            _ => Table::new(),
        };
        if variant.contains_key(CORE) && !table.contains_key(CORE) {
            let (_, core) = METHODS[0];
            table.extend(embedded(core).remove_entry(CORE));
        }
        let file = file.map_or(String::new(), |f| f.display().to_string());
        let layers = [("the preset", variant), (file.as_str(), from_file), ("--set", overrides)];
        let config: Self = lay(table, layers)?;
        config.check_numbers()?;
        Ok(config)
    }
}

/// A configuration of one preset without methods: the preset, the keys of a variant, the file, `overrides`.
pub(crate) fn layered<T: DeserializeOwned>(
    preset: &str,
    variant: Option<&str>,
    file: Option<&Path>,
    overrides: Table,
) -> Result<T, Error> {
    let variant = variant.map_or(Table::new(), embedded);
    let from_file = file.map_or(Ok(Table::new()), read)?;
    let file = file.map_or(String::new(), |f| f.display().to_string());
    let layers = [("the preset", variant), (file.as_str(), from_file), ("--set", overrides)];
    lay(embedded(preset), layers)
}

/// Lays named layers over a table of all keys.
fn lay<T: DeserializeOwned>(mut table: Table, layers: [(&str, Table); 3]) -> Result<T, Error> {
    for (source, layer) in layers {
        merge(&mut table, layer).map_err(|key| unknown_key(source, &key, &table))?;
    }
    table.try_into().map_err(|e: toml::de::Error| {
        let text = e.to_string().trim().replace('\n', " ");
        let text = text.replace("u32", "a whole number from 0 to 4294967295");
        let text = ["u64", "usize"]
            .iter()
            .fold(text, |text, kind| text.replace(kind, "a whole number of 0 or more"));
        Error::Usage(format!("configuration: {}", ends_of(&text.replace("f64", "a number"))))
    })
}

/// Leaves out the middle of a long message, where it repeats a value; its ends say what is wrong and where.
fn ends_of(text: &str) -> String {
    const END: usize = 150;
    let characters: Vec<char> = text.chars().collect();
    if characters.len() <= 2 * END {
        return text.to_owned();
    }
    let (start, end) = (&characters[..END], &characters[characters.len() - END..]);
    format!("{}...{}", String::from_iter(start), String::from_iter(end))
}

fn embedded(text: &str) -> Table {
    text.parse().expect("a test parses every preset")
}

fn variant(method: &str, name: &str) -> Result<Table, Error> {
    let name = name.replace('_', "-");
    let of_method = || VARIANTS.iter().filter(|(of, ..)| *of == method);
    if name == "default" {
        return Ok(Table::new());
    }
    if let Some((.., text)) = of_method().find(|(_, known, _)| *known == name) {
        return Ok(embedded(text));
    }
    let known: Vec<&str> =
        ["default"].into_iter().chain(of_method().map(|(_, known, _)| *known)).collect();
    Err(Error::Usage(format!(
        "the method '{method}' has no preset '{name}'; known: {}",
        known.join(", ")
    )))
}

fn read(path: &Path) -> Result<Table, Error> {
    let name = path.display();
    let text = torch_ext::file::read_to_string(path)
        .map_err(|e| Error::Usage(format!("{name}: cannot be read: {e}{}", models::advice(&e))))?;
    text.parse().map_err(|e: toml::de::Error| {
        let line = e.span().map_or(0, |span| text[..span.start].lines().count().max(1));
        Error::Usage(format!("{name}: line {line} is not TOML: {}", e.message().trim()))
    })
}

/// Lays `layer` over `table`, tables key by key; fails with the dotted name of a key that `table` lacks.
fn merge(table: &mut Table, layer: Table) -> Result<(), String> {
    for (key, value) in layer {
        match (table.get_mut(&key), value) {
            (None, _) => return Err(key),
            (Some(Value::Table(inner)), Value::Table(value)) => {
                merge(inner, value).map_err(|inner| format!("{key}.{inner}"))?;
            }
            (Some(slot), value) => *slot = value,
        }
    }
    Ok(())
}

/// Puts `key=value` into `table`; a key may be dotted, and what is no TOML is taken as a string.
pub fn set(table: &mut Table, setting: &str) -> Result<(), Error> {
    let refuse = |what: &str| {
        let start: String = setting.chars().take(60).collect();
        let rest = if start.len() < setting.len() { "…" } else { "" };
        Err(Error::Usage(format!("--set '{start}{rest}' {what}")))
    };
    let Some((key, value)) = setting.split_once('=') else {
        return refuse("is no setting; write --set key=value");
    };
    // Tables lie one in another, and what takes them apart again calls itself: no key has many parts.
    let long = key.len() > LONGEST_KEY || key.matches('.').count() > 1;
    if long || key.split('.').any(|part| part.trim().is_empty()) {
        return refuse(
            "names no key; write --set key=value, or table.key=value as in core.views=4",
        );
    }
    let (key, value) = (key.trim().replace('-', "_"), value.trim());
    let parsed = format!("v = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    let value = parsed.unwrap_or_else(|| Value::String(value.to_owned()));
    let (path, last) = key.rsplit_once('.').unwrap_or(("", &key));
    let mut place = table;
    if !path.is_empty() {
        let inner = place.entry(path).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(inner) = inner else {
            return refuse(&format!("sets a key of '{path}', which is given as no table"));
        };
        place = inner;
    }
    place.insert(last.to_owned(), value);
    Ok(())
}

fn unknown_key(source: &str, key: &str, known: &Table) -> Error {
    let known = dotted(known);
    let nearness = |known: &str| {
        // A key of a table is known without the table's name, too.
        let last = known.rsplit('.').next().unwrap_or(known);
        strsim::jaro_winkler(known, key).max(strsim::jaro_winkler(last, key))
    };
    let nearest = known.iter().max_by(|a, b| nearness(a).total_cmp(&nearness(b)));
    let hint = match nearest {
        Some(nearest) if nearness(nearest) > 0.7 => format!("did you mean {nearest}?"),
        _ => format!("known: {}", known.join(", ")),
    };
    Error::Usage(format!("{source}: the key '{key}' is unknown; {hint}"))
}

/// The names of all values, those in tables with the table's.
fn dotted(table: &Table) -> Vec<String> {
    let names = table.iter().flat_map(|(key, value)| match value {
        Value::Table(inner) => dotted(inner).iter().map(|k| format!("{key}.{k}")).collect(),
        _ => vec![key.clone()],
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(settings: &[&str]) -> Result<TrainConfig, Error> {
        let mut overrides = Table::new();
        for setting in settings {
            set(&mut overrides, setting).expect("a setting");
        }
        TrainConfig::resolve(None, None, overrides)
    }

    #[test]
    fn every_preset_is_complete_and_round_trips() {
        for (name, text) in METHODS {
            let config: TrainConfig = embedded(text).try_into().expect("a complete preset");
            assert_eq!(config.method, name);
            config_round_trips(&config);
        }
        for (method, name, _) in VARIANTS {
            let overrides = Table::from_iter([("method".to_owned(), method.into())]);
            let plain = TrainConfig::resolve(None, None, overrides.clone()).expect("a preset");
            let config = TrainConfig::resolve(Some(name), None, overrides).expect("a variant");
            assert_ne!(plain, config, "{name} changes something");
            config_round_trips(&config);
        }
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/train"));
        assert_eq!(files.expect("the folder").count(), METHODS.len() + VARIANTS.len());
    }

    fn config_round_trips(config: &TrainConfig) {
        let again: TrainConfig = toml::from_str(&config.to_toml()).expect("what was written");
        assert_eq!(again, *config);
    }

    #[test]
    fn flags_win_over_the_file_which_wins_over_the_variant_and_the_preset() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "steps = 7\nseed = 9\n[core]\nviews = 2\n").expect("written");
        let mut overrides = Table::new();
        set(&mut overrides, "steps=3").expect("a setting");
        set(&mut overrides, "core.lambda-emb=1").expect("a setting");
        set(&mut overrides, "core.norm=none").expect("a setting");
        let config =
            TrainConfig::resolve(Some("official_compat"), Some(file.path()), overrides).unwrap();
        let core = config.core.expect("the default method");
        assert_eq!((config.steps, config.seed, config.batch_size), (3, 9, 6));
        assert_eq!((core.views, core.lambda_emb, core.lambda_attn), (2, 1.0, 0.05));
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_the_nearest() {
        for (setting, near) in [
            ("learning-rat=1", "learning_rate?"),
            ("core.lambda_em=1", "core.lambda_emb?"),
            ("lambda_emb=1", "core.lambda_emb?"),
        ] {
            let error = resolve(&[setting]).expect_err("no such key").to_string();
            assert!(error.contains(near), "{error}");
        }
    }

    #[test]
    fn an_unknown_preset_names_those_of_the_method() {
        let error = TrainConfig::resolve(Some("quick"), None, Table::new()).unwrap_err();
        assert!(error.to_string().contains("default, paper-literal, official-compat, fast"));
    }

    #[test]
    fn a_value_of_the_wrong_kind_names_its_key() {
        for setting in ["steps=many", "core=3", "core.views=some"] {
            let error = resolve(&[setting]).expect_err("no number").to_string();
            let key = setting.split(['.', '=']).next().unwrap();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn a_seed_has_all_of_64_bits_and_comes_back_from_the_file() {
        for seed in [0, 1 << 62, 1 << 63, u64::MAX] {
            let config = resolve(&[&format!("seed={seed}")]).expect("a seed");
            assert_eq!(config.seed, seed);
            config_round_trips(&config);
        }
        for seed in ["-1", "18446744073709551616", "1.5", "many"] {
            let error = resolve(&[&format!("seed={seed}")]).expect_err("no seed").to_string();
            assert!(error.contains("from 0 to 18446744073709551615"), "{error}");
        }
        assert!(resolve(&["seed=-1"]).unwrap_err().to_string().contains("'-1' is no seed"));
    }

    #[test]
    fn a_setting_of_many_dots_or_none_that_names_a_key_is_refused() {
        let deep = "a.".repeat(60_000) + "b=1";
        let long = "a".repeat(100_000) + "=1";
        for setting in
            [deep.as_str(), &long, "core..views=1", ".views=1", "core.=1", "=1", "core.a.b=1"]
        {
            let error = set(&mut Table::new(), setting).unwrap_err().to_string();
            assert!(error.contains("names no key") && error.len() < 400, "{error}");
        }
        let nested = format!("core={}1{}", "[".repeat(60_000), "]".repeat(60_000));
        assert!(resolve(&[&nested]).is_err());
        let error = resolve(&[&format!("steps={}", "[".repeat(60_000))]).unwrap_err().to_string();
        assert!(error.contains("...") && error.len() < 400 && error.contains("`steps`"), "{error}");
    }

    #[test]
    fn every_number_has_a_range_that_is_checked_wherever_it_comes_from() {
        let absurd = |value: &Value| match value {
            Value::Integer(_) => vec!["4294967295"],
            Value::Float(_) => vec!["1e300", "-1e300", "nan", "inf"],
            _ => Vec::new(),
        };
        let numbers = |text: &str| -> Vec<(String, Value)> {
            let table = embedded(text);
            let inner = table.get(CORE).and_then(Value::as_table).into_iter().flatten();
            let inner = inner.map(|(key, value)| (format!("{CORE}.{key}"), value.clone()));
            let all = table.iter().map(|(key, value)| (key.clone(), value.clone())).chain(inner);
            all.filter(|(key, _)| key != "seed").collect()
        };
        let mut tried = 0;
        for (method, text) in METHODS {
            for (key, value) in numbers(text) {
                for absurd in absurd(&value) {
                    let method = format!("method={method}");
                    let error = resolve(&[&method, &format!("{key}={absurd}")]).unwrap_err();
                    assert!(error.to_string().starts_with(&format!("{key} is ")), "{error}");
                    assert_eq!(error.exit_code(), 2);
                    tried += 1;
                }
            }
        }
        assert!(tried > 200, "{tried}");
        // A file is checked as flags are, even where nothing is trained, as for a report.
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "resolution = 4000000000\n").expect("written");
        let error = TrainConfig::resolve(None, Some(file.path()), Table::new()).unwrap_err();
        assert!(error.to_string().contains("resolution is 4000000000"), "{error}");
    }

    #[test]
    fn settings_may_be_strings_without_quotes() {
        let config = resolve(&["concept=<cat>", "learning_rate=1e-3"]).expect("a configuration");
        assert_eq!((config.concept.as_str(), config.learning_rate), ("<cat>", 1e-3));
    }
}
