use super::*;
use proptest::prelude::*;
use serde_json::json;

fn value() -> Value {
    json!({
        "ID": "task-7",
        "Name": "web",
        "Labels": "a=1,com.example.b=two",
        "State": { "Running": true, "Status": "running", "ExitCode": 0, "Health": null },
        "Config": { "Cmd": ["sh", "-c", "x"], "Labels": { "com.example.a": "one" }, "Env": null },
        "Args": ["a", "b", "c"],
        "Empty": { "Map": {}, "List": [], "Text": "" },
        "IPAM": { "Config": [{ "Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1" }] },
        "NetworkSettings": {
            "Ports": { "80/tcp": [{ "HostIp": "", "HostPort": "8080" }, { "HostIp": "::", "HostPort": "8081" }] },
            "Networks": { "red": { "IPAddress": "10.0.2.2" }, "blue": { "IPAddress": "10.0.1.2" } },
        },
    })
}

fn render(template: &str) -> Result<String, String> {
    Template::parse(template).and_then(|t| t.render(&value()))
}

fn all_say(table: &[(&str, &str)]) {
    for (template, text) in table {
        assert_eq!(render(template).as_deref(), Ok(*text), "{template}");
    }
}

#[test]
fn what_dockers_users_write_is_understood() {
    all_say(&[
        ("{{.Name}}", "web"),
        ("{{ .Name }}: {{.State.Running}}", "web: true"),
        ("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "10.0.1.210.0.2.2"),
        (r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}"#, "8080"),
        ("{{range $k, $v := .NetworkSettings.Networks}}{{$k}}={{$v.IPAddress}} {{end}}", "blue=10.0.1.2 red=10.0.2.2 "),
        (
            r#"{{range $p, $conf := .NetworkSettings.Ports}} {{$p}} -> {{(index $conf 0).HostPort}} {{end}}"#,
            " 80/tcp -> 8080 ",
        ),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{.Name | upper}}", "WEB"),
        (r#"{{printf "%-10s|%d" .Name 3}}"#, "web       |3"),
        ("{{json .Config.Cmd}}", r#"["sh","-c","x"]"#),
        ("{{(index .IPAM.Config 0).Subnet}}", "10.0.1.0/24"),
        ("{{range .IPAM.Config}}{{.Subnet}}{{end}}", "10.0.1.0/24"),
        (r#"{{index .Config.Labels "com.example.a"}}"#, "one"),
        (r#"{{.Label "com.example.b"}}{{.Label "no"}}"#, "two"),
        (r#"{{join .Args ", "}}"#, "a, b, c"),
        (r"{{.Name}}\t{{.Name}}\n", "web\tweb\n"),
        ("{{with .State}}{{.Status}} {{$.Name}}{{end}}", "running web"),
        (r#"{{range $i, $a := .Args}}{{if $i}}, {{end}}{{$a}}{{end}}"#, "a, b, c"),
        (r#"{{len .Args}} {{title "in capitals"}} {{split "a:b" ":"}}"#, "3 In Capitals [a b]"),
        ("{{.Config.Cmd}} {{.Config.Labels}} {{.Config.Env}}", "[sh -c x] map[com.example.a:one] <no value>"),
        ("{{println .Name}}{{print 1 2 .Name 3}}", "web\n1 2web3"),
        (r#"{{if eq .State.Status "created" "running"}}{{slice .ID 0 4}}{{end}}"#, "task"),
        ("{{/* nothing */}}{{- /* nothing */ -}} {{.Name}}", "web"),
    ]);
}

#[test]
fn blocks_blanks_variables_and_truth_are_gos() {
    all_say(&[
        ("a {{- .Name -}} b", "awebb"),
        ("a\n  {{- if true }} x {{ end -}}\n b", "a x b"),
        ("{{-3}} {{- 3 -}} {{3}}", "-333"),
        ("{{range .Empty.List}}x{{else}}none{{end}}{{range .Config.Env}}x{{end}}", "none"),
        ("{{with .Empty.Text}}x{{else with .Name}}{{.}}{{end}}", "web"),
        (r#"{{if eq .Name "db"}}1{{else if eq .Name "web"}}2{{else}}3{{end}}"#, "2"),
        (
            r#"{{if .Empty.Text}}{{else}}{{if .Empty.Map}}{{else}}{{if .State.ExitCode}}{{else}}no{{end}}{{end}}{{end}}"#,
            "no",
        ),
        ("{{$x := .Name}}{{if true}}{{$x := 1}}{{$x}}{{end}}{{$x}}", "1web"),
        ("{{$n := 0}}{{range $i, $_ := .Args}}{{$n = $i}}{{end}}{{$n}}", "2"),
        ("{{range $a := .Args}}{{$a}}{{$.Name}}{{end}}", "awebbwebcweb"),
        // What is decided is not gone on with.
        ("{{and .State.Health .State.Health.Status}} {{or .Name .Nmae}} {{not .Empty.List}}", "<no value> web true"),
        ("{{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 3 2}} {{ne 1 2}} {{lt `a` `b`}}", "true true false true true true"),
        (r#"{{"}}"}}{{`"\n`}}{{"\"\u00e9\x41\t"}}"#, "}}\"\\n\"\u{e9}A\t"),
        // A key that is not there is empty, as the others are full.
        (r#"[{{index .Config.Labels "no"}}] {{index .NetworkSettings.Ports "81/tcp"}}"#, "[] []"),
        ("{{truncate .ID 3}}|{{pad .Name 1 2}}|{{slice .Args 1}}", "tas| web  |[b c]"),
        (
            r#"{{printf "%05d|%+d|%5.2s|%q|%t|%v|%%|%-4v|" 42 7 "abc" "x\n" true .Args 1}}"#,
            "00042|+7|   ab|\"x\\n\"|true|[a b c]|%|1   |",
        ),
        (r#"{{.Name | printf "%s-%s" "a" | upper | json}}"#, r#""A-WEB""#),
    ]);
}

#[test]
fn a_tables_header_is_dockers() {
    let header = |text: &str| Template::parse(text).map(|t| (t.is_table, t.header("NETWORK ID")));
    let is = |text: &str| Ok((true, text.to_owned()));
    assert_eq!(header(r"table {{.ID}}\t{{.Name | upper}}\t{{json .CreatedAt}}"), is("NETWORK ID\tNAME\tCREATED AT"));
    assert_eq!(header(r"table {{.State.Running}} {{.IPv6}} {{.exit_code}}"), is("RUNNING IPV6 EXIT CODE"));
    assert_eq!(header(r"table {{.RunningFor}}\t{{if .Name}}{{.Status}}{{end}}"), is("CREATED\tSTATUS"));
    assert_eq!(header("{{.Name}}"), Ok((false, "NAME".to_owned())));
}

#[test]
fn what_is_wrong_is_told() {
    for (template, part) in [
        ("{{.Nmae}}", "there is no field Nmae: there are Args, Config"),
        ("{{.State.Nmae}}", "there are ExitCode, Health, Running, Status"),
        ("{{.State.Health.Status}}", "no field Status: what it is looked for in is not there"),
        ("{{.Args.X}}", "a list has none"),
        ("{{.Name.X}}", "\"web\" has none"),
        ("{{.Name", "has no end"),
        ("{{\"a}}", "has no end"),
        ("{{/* a }}", "has no end"),
        ("{{/* a */ .Name}}", "a comment is an action of its own"),
        ("{{frob .Name}}", "frob is not known: there are if, range, with, and"),
        ("{{range .Args}}", "{{end}} is missing: of {{range}}"),
        ("{{if .A}}{{else}}", "{{end}} is missing: of {{if}}"),
        ("{{if .A}}{{else}}{{else}}{{end}}", "follows"),
        ("{{end}}", "ends nothing"),
        ("{{else}}", "is of no"),
        ("{{}}", "nothing"),
        ("{{if}}{{end}}", "missing"),
        ("{{.Name |}}", "missing"),
        ("{{(.Name}}", ") is missing"),
        ("{{.Name)}}", ") closes nothing"),
        ("{{$x}}", "there is no variable $x"),
        ("{{$x = 1}}", "there is no variable $x"),
        ("{{.Name | .ID}}", "is no function"),
        ("{{json len .Name}}", "parentheses"),
        ("{{index .Args 3}}", "index: there is no element 3: there are 3"),
        ("{{index .Args -1}}", "no position"),
        ("{{slice .Name 2 1}}", "slice: 2 to 1 is not inside of it: it has 3"),
        ("{{eq .Name 1}}", "two kinds"),
        ("{{lt .Name 1}}", "no order"),
        ("{{join .Name 1}}", "join: (\"web\", 1) is not what it takes: a list"),
        ("{{range .Name}}{{end}}", "range goes over a list or a map"),
        (r#"{{printf "%d" .Name}}"#, "%d is for a whole number"),
        (r#"{{printf "%s"}}"#, "no value for %s"),
        (r#"{{printf "a" 1}}"#, "the last 1"),
        (r#"{{printf "%99999s" 1}}"#, "wider"),
        ("{{pad .Name 99999999 0}}", "99999999 blanks"),
        ("{{99999999999999999999}}", "no whole number"),
        ("{{1.5}}", "no whole number"),
        (r#"{{"\q"}}"#, "stands for nothing"),
        ("{{'a'}}", "is not understood"),
    ] {
        let said = render(template).expect_err(template);
        assert!(said.contains(part), "{template}: {said}");
    }
}

#[test]
fn what_is_nested_too_deep_is_refused_and_not_the_end_of_us() {
    let deep = 100_000;
    for (template, part) in [
        (format!("{{{{{}1{}}}}}", "(".repeat(deep), ")".repeat(deep)), "parentheses"),
        ("{{if 1}}".repeat(deep), "blocks"),
        (format!("{{{{if 0}}}}{}", "{{else if 0}}".repeat(deep)), "blocks"),
        (format!("{{{{{}}}}}", ".A".repeat(deep)), "there is no field A"),
    ] {
        assert!(render(&template).expect_err("too deep").contains(part));
    }
    assert_eq!(render(&format!("{{{{{}1{}}}}}", "(".repeat(90), ")".repeat(90))).as_deref(), Ok("1"));
    assert_eq!(render(&format!("{{{{1{}}}}}", "|print".repeat(deep))).as_deref(), Ok("1"));
}

/// What templates are made of, in any order.
const SCRAPS: &[&str] = &[
    "{{",
    "}}",
    "{{-",
    "-}}",
    " ",
    "\n",
    ".",
    ".Name",
    ".State",
    ".Args",
    ".Config.Cmd",
    "$",
    "$x",
    ":=",
    "=",
    ",",
    "|",
    "(",
    ")",
    "if",
    "else",
    "end",
    "range",
    "with",
    "{{end}}",
    "{{else}}",
    "{{if .Name}}",
    "{{range .Args}}",
    "index",
    "slice",
    "printf",
    "\"%s\"",
    "\"%-3.9d\"",
    "print",
    "json",
    "len",
    "and",
    "or",
    "not",
    "eq",
    "lt",
    "pad",
    "truncate",
    "split",
    "join",
    "title",
    "0",
    "1",
    "-1",
    "99",
    "\"é\"",
    "`",
    "\"",
    "\\",
    "/*",
    "*/",
    "é",
    "%",
    "nil",
    "true",
    "table ",
];

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,60}") {
        let _ = render(&text);
        let _ = render(&format!("{{{{{text}}}}}"));
        let _ = render(&format!("{{{{printf {text:?} .Name 1}}}}"));
    }

    #[test]
    fn no_order_of_what_templates_are_made_of_makes_it_panic(
        scraps in prop::collection::vec(prop::sample::select(SCRAPS), 0..24),
        between in prop::sample::select(vec!["", " "]),
    ) {
        let text = scraps.join(between);
        for text in [text.clone(), format!("{{{{{text}}}}}")] {
            if let Ok(template) = Template::parse(&text) {
                template.header("ID");
                let _ = template.render(&value());
            }
        }
    }

    #[test]
    fn text_without_braces_is_itself(text in "[^{\\\\]{0,40}") {
        prop_assume!(!text.starts_with("table "));
        prop_assert_eq!(render(&text), Ok(text));
    }
}
