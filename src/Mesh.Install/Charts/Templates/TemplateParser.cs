using System.Text;

namespace Mesh.Install.Charts.Templates;

/// <summary>
/// Reads the subset of Go's text/template that the chart uses: text, comments, trimming, variables, pipelines, if, with, range, define.
/// Whatever else there is (block, template, break, methods, …) is refused with its line, so that what the chart means to Helm and what
/// it means to us cannot differ unseen.
/// </summary>
internal sealed class TemplateParser
{
    private static readonly string[] Refused = ["block", "template", "break", "continue"];

    private readonly string _file;
    private readonly string _text;
    private readonly Dictionary<string, IReadOnlyList<Node>> _defined = [];
    private int _at;
    private int _line = 1;
    private bool _trimNext;

    private TemplateParser(string file, string text) => (_file, _text) = (file, text);

    /// <returns>The file's own body, and the templates that it defines.</returns>
    /// <exception cref="TemplateException">It is broken, or uses what is not of the subset.</exception>
    public static (IReadOnlyList<Node> Body, IReadOnlyDictionary<string, IReadOnlyList<Node>> Defined) Parse(string file, string text)
    {
        var parser = new TemplateParser(file, text);
        var (body, end) = parser.Body();
        if (end is not null)
            throw parser.Fault($"{{{{ {end.Word} }}}} without a beginning");
        return (body, parser._defined);
    }

    /// <summary>Up to the end of the text, or to an end or else, which is consumed.</summary>
    private (List<Node> Nodes, ActionParser? End) Body()
    {
        var nodes = new List<Node>();
        while (_at < _text.Length)
        {
            var open = _text.IndexOf("{{", _at, StringComparison.Ordinal);
            var text = open < 0 ? _text[_at..] : _text[_at..open];
            var line = _line;
            _line += Lines(text);
            if (_trimNext)
                text = text.TrimStart();
            _trimNext = false;
            if (open < 0)
            {
                AddText(nodes, line, text);
                _at = _text.Length;
                break;
            }
            _at = open + 2;
            if (Rest().StartsWith("- ") || Rest().StartsWith("-\n"))
            {
                text = text.TrimEnd();
                _at++;
            }
            AddText(nodes, line, text);
            if (Action() is not { } action)
                continue;
            switch (action.Word)
            {
                case "end" or "else":
                    return (nodes, action);
                case "if":
                    nodes.Add(If(action));
                    break;
                case "with" or "range":
                    nodes.Add(Block(action));
                    break;
                case "define":
                    Define(action);
                    break;
                default:
                    if (Refused.Contains(action.Word))
                        throw Fault($"{{{{ {action.Word} }}}} is not among what this renderer knows");
                    nodes.Add(new ActionNode(action.Line, action.Pipeline()));
                    break;
            }
        }
        return (nodes, null);
    }

    private static void AddText(List<Node> nodes, int line, string text)
    {
        if (text.Length > 0)
            nodes.Add(new TextNode(line, text));
    }

    /// <returns>Null for a comment.</returns>
    private ActionParser? Action()
    {
        var line = _line;
        if (Rest().TrimStart().StartsWith("/*"))
        {
            var close = _text.IndexOf("*/", _at, StringComparison.Ordinal);
            var behind = close < 0 ? "" : _text[(close + 2)..].TrimStart();
            if (!behind.StartsWith("}}", StringComparison.Ordinal) && !behind.StartsWith("-}}", StringComparison.Ordinal))
                throw Fault("a comment does not end with */}}");
            Close(_text.IndexOf("}}", close, StringComparison.Ordinal));
            return null;
        }
        var content = new StringBuilder();
        for (var i = _at; i < _text.Length; i++)
        {
            var c = _text[i];
            if (c is '"' or '`')
            {
                var end = EndOfQuote(i);
                content.Append(_text, i, end - i + 1);
                i = end;
            }
            else if (c == '}' && i + 1 < _text.Length && _text[i + 1] == '}')
            {
                var inner = content.ToString();
                Close(i);
                return new ActionParser(_file, line, inner.EndsWith(" -", StringComparison.Ordinal) ? inner[..^2] : inner);
            }
            else
            {
                content.Append(c);
            }
        }
        throw Fault("{{ without }}");
    }

    private int EndOfQuote(int start)
    {
        var quote = _text[start];
        for (var i = start + 1; i < _text.Length; i++)
        {
            if (_text[i] == quote)
                return i;
            if (quote == '"' && _text[i] == '\\')
                i++;
        }
        throw Fault("a quoted text does not end");
    }

    private void Close(int at)
    {
        _trimNext = _text[at - 1] == '-' && char.IsWhiteSpace(_text[at - 2]) || _text.AsSpan(_at, at - _at).EndsWith("*/ -");
        _line += Lines(_text[_at..at]);
        _at = at + 2;
    }

    private IfNode If(ActionParser action)
    {
        var branches = new List<(Pipeline?, IReadOnlyList<Node>)>();
        Pipeline? condition = action.Pipeline("if");
        while (true)
        {
            var (body, end) = Body();
            branches.Add((condition, body));
            if (end is null)
                throw new TemplateException(_file, action.Line, "{{ if }} without {{ end }}");
            if (end.Word == "end")
                return new IfNode(action.Line, branches);
            if (condition is null)
                throw Fault("a second {{ else }}");
            condition = end.ElseIf();
        }
    }

    private Node Block(ActionParser action)
    {
        var pipeline = action.Pipeline(action.Word);
        var (body, end) = Body();
        List<Node> otherwise = [];
        if (end is { Word: "else" })
        {
            if (end.ElseIf() is not null)
                throw Fault($"{{{{ else if }}}} belongs to if, not to {action.Word}");
            (otherwise, end) = Body();
        }
        if (end is not { Word: "end" })
            throw new TemplateException(_file, action.Line, $"{{{{ {action.Word} }}}} without {{{{ end }}}}");
        return action.Word == "with"
            ? new WithNode(action.Line, pipeline, body, otherwise)
            : new RangeNode(action.Line, pipeline, body, otherwise);
    }

    private void Define(ActionParser action)
    {
        var name = action.DefinedName();
        var (body, end) = Body();
        if (end is not { Word: "end" })
            throw new TemplateException(_file, action.Line, "{{ define }} without {{ end }}");
        if (!_defined.TryAdd(name, body))
            throw new TemplateException(_file, action.Line, $"\"{name}\" is defined twice");
    }

    private ReadOnlySpan<char> Rest() => _text.AsSpan(_at);

    private static int Lines(string text) => text.AsSpan().Count('\n');

    private TemplateException Fault(string message) => new(_file, _line, message);
}
