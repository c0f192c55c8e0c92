using System.Globalization;
using System.Text.Json;

namespace Mesh.Install.Charts.Templates;

/// <summary>Reads what is between {{ and }}.</summary>
internal sealed class ActionParser
{
    private readonly string _file;
    private readonly List<string> _tokens;
    private int _at;

    public ActionParser(string file, int line, string text)
    {
        (_file, Line) = (file, line);
        _tokens = [.. Tokens(text)];
    }

    public int Line { get; }

    /// <summary>The first word: a keyword, or whatever a pipeline begins with.</summary>
    public string Word => _tokens.Count > 0 ? _tokens[0] : "";

    public Pipeline Pipeline(string? keyword = null)
    {
        if (keyword is not null)
            Expect(keyword);
        var pipeline = ReadPipeline(keyword == "range");
        if (_at < _tokens.Count)
            throw Fault($"'{_tokens[_at]}' was not expected");
        return pipeline;
    }

    /// <returns>Null for a bare else.</returns>
    public Pipeline? ElseIf()
    {
        Expect("else");
        return _at == _tokens.Count ? null : Pipeline("if");
    }

    public string DefinedName()
    {
        Expect("define");
        return _tokens.Count == 2 && _tokens[1][0] == '"' ? Unquote(_tokens[1]) : throw Fault("define wants one quoted name");
    }

    private Pipeline ReadPipeline(bool twoVariables)
    {
        var variables = new List<string>();
        var assigns = false;
        var sign = _tokens.FindIndex(_at, token => token is ":=" or "=");
        if (sign >= 0 && Peek()?[0] == '$' && _tokens[_at..sign].TrueForAll(token => token == "," || token[0] == '$'))
        {
            variables.AddRange(_tokens[_at..sign].Where(token => token != ","));
            if (variables.Count > (twoVariables ? 2 : 1) || variables.Exists(name => name.Contains('.', StringComparison.Ordinal)))
                throw Fault("a variable was expected before " + _tokens[sign]);
            assigns = _tokens[sign] == "=";
            _at = sign + 1;
        }
        var commands = new List<Command> { ReadCommand() };
        while (Peek() == "|")
        {
            _at++;
            commands.Add(ReadCommand());
        }
        return new Pipeline(Line, variables, assigns, commands);
    }

    private Command ReadCommand()
    {
        var operands = new List<Operand>();
        while (Peek() is { } token && token is not ("|" or ")"))
            operands.Add(ReadOperand());
        if (operands.Count == 0)
            throw Fault("a value is missing");
        return new Command(operands);
    }

    private Operand ReadOperand()
    {
        var token = _tokens[_at++];
        switch (token[0])
        {
            case '"' or '`':
                return new Literal(Unquote(token));
            case '(':
                var inner = ReadPipeline(twoVariables: false);
                Expect(")");
                // A field directly behind the parenthesis goes down from its value.
                return new Chain(null, inner, Peek() is { } next && next.StartsWith("\u0001.", StringComparison.Ordinal) ? Fields(_tokens[_at++][1..]) : []);
            case '.':
                return new Chain(null, null, Fields(token));
            case '$':
                var dot = token.IndexOf('.', StringComparison.Ordinal);
                return new Chain(dot < 0 ? token : token[..dot], null, dot < 0 ? [] : Fields(token[dot..]));
        }
        if (char.IsAsciiDigit(token[0]) || token[0] == '-')
        {
            return long.TryParse(token, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var number)
                ? new Literal(number)
                : throw Fault($"'{token}' is no whole number");
        }
        return token switch
        {
            "true" or "false" => new Literal(token == "true"),
            "nil" => new Literal(null),
            _ when token.All(c => char.IsAsciiLetterOrDigit(c) || c == '_') => new FunctionName(token),
            _ => throw Fault($"'{token}' was not expected"),
        };
    }

    private string[] Fields(string token) => token == "." ? [] : token[1..].Split('.') is var names && !names.Contains("")
        ? names
        : throw Fault($"'{token}' is no field");

    private static IEnumerable<string> Tokens(string text)
    {
        var i = 0;
        while (i < text.Length)
        {
            if (char.IsWhiteSpace(text[i]))
            {
                i++;
                continue;
            }
            var start = i;
            if (text[i] is '"' or '`')
            {
                var quote = text[i++];
                while (text[i] != quote)
                    i += quote == '"' && text[i] == '\\' ? 2 : 1;
                i++;
            }
            else if (text[i] is '(' or ')' or '|' or ',')
            {
                i++;
            }
            else if (text[i] == '=' || text.AsSpan(i).StartsWith(":="))
            {
                i += text[i] == '=' ? 1 : 2;
            }
            else
            {
                while (i < text.Length && !char.IsWhiteSpace(text[i]) && text[i] is not ('(' or ')' or '|' or ',' or '"' or '`' or '='))
                    i++;
            }
            var token = text[start..i];
            yield return token[0] == '.' && start > 0 && text[start - 1] == ')' ? "\u0001" + token : token;
        }
    }

    private string Unquote(string token)
    {
        if (token[0] == '`')
            return token[1..^1];
        try
        {
            using var json = JsonDocument.Parse(token);
            return json.RootElement.GetString()!;
        }
        catch (JsonException e)
        {
            throw new TemplateException(_file, Line, $"{token} is no quoted text that this renderer knows", e);
        }
    }

    private string? Peek() => _at < _tokens.Count ? _tokens[_at] : null;

    private void Expect(string token)
    {
        if (Peek() != token)
            throw Fault($"'{token}' was expected{(Peek() is { } other ? $", not '{other}'" : "")}");
        _at++;
    }

    private TemplateException Fault(string message) => new(_file, Line, message);
}
