//! As much of a `dvc.yaml` as most of them use: stages with one `cmd`, and plain lists of `deps` and `outs`.

/// A stage of a `dvc.yaml`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct DvcStage {
    pub(super) name: String,
    pub(super) cmd: String,
    pub(super) deps: Vec<String>,
    pub(super) outs: Vec<String>,
    /// Whether everything in it was understood.
    pub(super) plain: bool,
}

/// Reads the stages.
pub(super) fn stages(text: &str) -> Vec<DvcStage> {
    let mut all: Vec<DvcStage> = Vec::new();
    let mut section = String::new();
    let mut inside = false;
    for line in text.lines() {
        let content = line.split(" #").next().unwrap_or(line).trim_end();
        let trimmed = content.trim_start();
        let indent = content.len() - trimmed.len();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        if indent == 0 {
            inside = trimmed == "stages:";
        } else if inside && indent == 2 && trimmed.ends_with(':') {
            let name = trimmed.trim_end_matches(':').trim_matches(['"', '\'']).to_owned();
            all.push(DvcStage { name, plain: true, ..DvcStage::default() });
        } else if inside && let Some(stage) = all.last_mut() {
            entry(stage, &mut section, trimmed);
        }
    }
    for stage in &mut all {
        stage.plain &= !stage.cmd.is_empty() && !stage.cmd.contains("${");
    }
    all
}

fn entry(stage: &mut DvcStage, section: &mut String, text: &str) {
    let unquote = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
    if let Some(item) = text.strip_prefix("- ") {
        let item = unquote(item.trim_end_matches(':'));
        match section.as_str() {
            "deps" => stage.deps.push(item),
            "outs" | "metrics" | "plots" => stage.outs.push(item),
            "cmd" | "foreach" | "matrix" => stage.plain = false,
            _ => {}
        }
        return;
    }
    // Options of an output (`cache: false`) are deeper than the keys of a stage, and don't change what it writes.
    let Some((key, value)) = text.split_once(':') else {
        stage.plain = false;
        return;
    };
    match (key, value.trim()) {
        ("cmd", value) if !value.is_empty() && !value.starts_with(['|', '>']) => stage.cmd = unquote(value),
        ("cmd" | "foreach" | "matrix" | "wdir" | "do", _) => stage.plain = false,
        ("deps" | "outs" | "metrics" | "plots" | "params", "") => {}
        _ => return,
    }
    section.clear();
    section.push_str(key);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_stages_are_read_and_others_are_marked() {
        let text = "stages:\n  prepare:\n    cmd: python prepare.py\n    deps:\n    - prepare.py\n    - data/raw.csv\n    outs:\n      - data/ready.parquet:\n          cache: false\n  many:\n    foreach: [1, 2]\n    do:\n      cmd: x ${item}\nvars:\n  - a: 1\n";
        let all = stages(text);
        assert_eq!(all.len(), 2);
        assert!(all[0].plain);
        assert_eq!(all[0].cmd, "python prepare.py");
        assert_eq!(all[0].deps, ["prepare.py", "data/raw.csv"]);
        assert_eq!(all[0].outs, ["data/ready.parquet"]);
        assert!(!all[1].plain);
    }
}
