using CsCheck;
using Mesh.Install.Charts;
using Mesh.Install.Charts.Templates;
using Mesh.Install.Text;
using Xunit;

namespace Mesh.Install.Tests;

/// <summary>Our renderer of Helm's templates: what it knows it does as Go does, what it does not know it refuses.</summary>
public class TemplateTests
{
    [Theory]
    [InlineData("a {{ .x }} b", "a 1 b")]
    [InlineData("a {{- .x -}} b", "a1b")]
    [InlineData("a\n{{- /* said\nto nobody */ -}}\n b", "ab")]
    [InlineData("{{ if .yes }}y{{ else }}n{{ end }}", "y")]
    [InlineData("{{ if .no }}y{{ else if eq .x 1 }}one{{ else }}n{{ end }}", "one")]
    [InlineData("{{ with .empty }}w{{ else }}e{{ end }}", "e")]
    [InlineData("{{ with .map }}{{ .b }}{{ $.x }}{{ end }}", "21")]
    [InlineData("{{ range .list }}<{{ . }}>{{ end }}", "<p><q>")]
    [InlineData("{{ range $i, $v := .list }}{{ $i }}{{ $v }}{{ end }}", "0p1q")]
    [InlineData("{{ range $k, $v := .map }}{{ $k }}={{ $v }};{{ end }}", "a=1;b=2;")]
    [InlineData("{{ range .none }}x{{ else }}none{{ end }}", "none")]
    [InlineData("{{ $v := 1 }}{{ if true }}{{ $v = 2 }}{{ end }}{{ $v }}", "2")]
    [InlineData("{{ $v := 1 }}{{ if true }}{{ $v := 2 }}{{ end }}{{ $v }}", "1")]
    [InlineData("{{ .text | quote }}", "\"say \\\"so\\\"\"")]
    [InlineData("{{ printf \"%s-%d\" .text 7 }}", "say \"so\"-7")]
    [InlineData("{{ default \"d\" .none }}", "d")]
    [InlineData("{{ and .yes .no .missing }}", "false")]
    [InlineData("{{ or .yes .missing }}", "true")]
    [InlineData("{{ (dict \"k\" (list 1 2)).k | toJson }}", "[1,2]")]
    // What Go's json.Marshal wrote of the same.
    [InlineData("{{ dict \"b\" \"<a>&'+\u00e9\\\"\\\\\" \"a\" 1 | toJson }}", "{\"a\":1,\"b\":\"\\u003ca\\u003e\\u0026'+\u00e9\\\"\\\\\"}")]
    [InlineData("{{ .map | toYaml | nindent 2 }}", "\n  a: 1\n  b: 2")]
    [InlineData("{{ define \"t\" }}[{{ . }}]{{ end }}{{ include \"t\" .x }}", "[1]")]
    [InlineData("{{ \"}}\" }}", "}}")]
    [InlineData("{{ `raw \"` }}", "raw \"")]
    [InlineData("{{ list 1\n 2 | toJson }}", "[1,2]")]
    public void It_does_what_Go_does(string template, string expected) => Assert.Equal(expected, Render(template));

    [Theory]
    [InlineData("\n{{ .missing }}", "test:2: there is no .missing")]
    [InlineData("{{ $v }}", "test:1: there is no variable $v")]
    [InlineData("{{ shout .x }}", "test:1: the function shout is not among what this renderer knows")]
    [InlineData("{{ template \"t\" . }}", "test:1: {{ template }} is not among what this renderer knows")]
    [InlineData("{{ if .x }}", "test:1: {{ if }} without {{ end }}")]
    [InlineData("{{ end }}", "test:1: {{ end }} without a beginning")]
    [InlineData("{{ .x", "test:1: {{ without }}")]
    [InlineData("{{ \"a }}", "test:1: a quoted text does not end")]
    [InlineData("{{ .x .y }}", "test:1: only a function takes arguments")]
    [InlineData("{{ (.x }}", "test:1: ')' was expected")]
    [InlineData("{{ .x) }}", "test:1: ')' was not expected")]
    [InlineData("{{ printf \"%v\" .x }}", "test:1: printf: '%v' is not among what this renderer knows")]
    [InlineData("{{ quote }}", "test:1: quote has 0 arguments")]
    [InlineData("{{ range .x }}{{ end }}", "test:1: cannot walk over a whole number")]
    [InlineData("{{ fail \"no such thing\" }}", "test:1: no such thing")]
    [InlineData("{{ define \"t\" }}{{ include \"t\" . }}{{ end }}{{ include \"t\" . }}", "test:1: \"t\" includes itself")]
    [InlineData("{{ 1.5 }}", "test:1: '1.5' is no whole number")]
    [InlineData("{{ .a..b }}", "test:1: '.a..b' is no field")]
    public void What_it_does_not_know_it_refuses_with_its_place(string template, string expected) =>
        Assert.StartsWith(expected, Assert.Throws<TemplateException>(() => Render(template)).Message, StringComparison.Ordinal);

    [Fact]
    public void Any_text_is_rendered_or_refused_and_never_worse() =>
        One("{{", "}}", "-", " ", "if", "end", ".x", "$v", ":=", "=", "|", "(", ")", "\"", "`", "range", "define", "/*", "*/", "\n", "quote", "a", "\\")
            .Array[0, 12].Select(words => string.Concat(words)).Sample(template =>
            {
                try
                {
                    Render(template);
                }
                catch (TemplateException)
                {
                    return;
                }
            }, iter: 20_000);

    [Fact]
    public void Trees_survive_YAML() =>
        Node(3).Sample(tree => Assert.True(Tree.Same(tree, YamlText.Parse(YamlText.Write(tree) + "\n", "test")), YamlText.Write(tree)), iter: 3000);

    private static Gen<T> One<T>(params T[] values) => Gen.Int[0, values.Length - 1].Select(i => values[i]);

    private static Gen<object?> Node(int depth)
    {
        Gen<object?> scalar = Gen.OneOf(
            One<object?>("", "true", "no", "12", "1.5", "0x1f", "~", "null", "a: b", "- a", "#x", "a #b", "'", "\"", "{}", "|",
                "x\ny\n", "x\n\n", "\nx", " x", "x ", "é", "\t", "%", "@a", "a:", "1e3", "-", ".", "=", "<<", "a\\b", "x\r\n"),
            One<object?>([null]), Gen.Bool.Select(flag => (object?)flag),
            Gen.Long.Select(number => (object?)number),
            Gen.String[Gen.Char[' ', '~'], 0, 8].Select(text => (object?)text));
        if (depth == 0)
            return scalar;
        return Gen.OneOf(scalar, Node(depth - 1).List[0, 3].Select(items => (object?)items.ToList()),
            Gen.Select(One("a", "b c", "1", "true", "x.y/z", "~", ""), Node(depth - 1)).List[0, 3]
                .Select(members => (object?)new Map(members.Select(member => KeyValuePair.Create(member.Item1, member.Item2)))));
    }

    private static string Render(string template)
    {
        var (body, defined) = TemplateParser.Parse("test", template);
        var dot = YamlText.ParseMap("{x: 1, yes: true, no: false, text: 'say \"so\"', empty: {}, none: [], list: [p, q], map: {b: 2, a: 1}}", "dot");
        return new TemplateRun(defined.ToDictionary(pair => pair.Key, pair => ("test", pair.Value)), ChartEnvironment.Nowhere).Render("test", body, dot);
    }
}
