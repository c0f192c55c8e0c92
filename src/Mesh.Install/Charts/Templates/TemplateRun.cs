using System.Text;
using Mesh.Install.Text;

namespace Mesh.Install.Charts.Templates;

/// <summary>
/// Executes parsed templates. Stricter than Go: a field that is not there is an error and not "&lt;no value&gt;", so that a typo in a
/// template cannot become an empty line of a manifest.
/// </summary>
internal sealed class TemplateRun(IReadOnlyDictionary<string, (string File, IReadOnlyList<Node> Body)> defined, IChartEnvironment environment)
{
    /// <summary>Templates that include each other.</summary>
    private const int MaxDepth = 50;

    private int _depth;

    /// <param name="file">For messages.</param>
    /// <param name="dot">What "." and "$" are.</param>
    public string Render(string file, IReadOnlyList<Node> body, object? dot)
    {
        var output = new StringBuilder();
        new Frame(this, file, output, dot).Run(body, dot);
        return output.ToString();
    }

    private string Include(string name, object? dot)
    {
        if (!defined.TryGetValue(name, out var template))
            throw new ArgumentException($"no template is called \"{name}\"");
        if (++_depth > MaxDepth)
            throw new ArgumentException($"\"{name}\" includes itself");
        var text = Render(template.File, template.Body, dot);
        _depth--;
        return text;
    }

    /// <summary>One template being executed: its variables and what it has printed.</summary>
    private sealed class Frame
    {
        private readonly TemplateRun _run;
        private readonly string _file;
        private readonly StringBuilder _output;
        private readonly List<(string Name, object? Value)> _variables;

        public Frame(TemplateRun run, string file, StringBuilder output, object? dot)
        {
            (_run, _file, _output) = (run, file, output);
            _variables = [("$", dot)];
        }

        /// <summary>Variables declared inside end with it.</summary>
        public void Run(IReadOnlyList<Node> body, object? dot)
        {
            var mark = _variables.Count;
            foreach (var node in body)
                Run(node, dot);
            _variables.RemoveRange(mark, _variables.Count - mark);
        }

        private void Run(Node node, object? dot)
        {
            var mark = _variables.Count;
            switch (node)
            {
                case TextNode text:
                    _output.Append(text.Text);
                    return;
                case ActionNode action:
                    var value = Declare(action.Pipeline, dot);
                    if (action.Pipeline.Variables.Count == 0)
                        _output.Append(Tree.Print(value));
                    return;
                case IfNode branches:
                    foreach (var (condition, body) in branches.Branches)
                    {
                        if (condition is not null && !TemplateFunctions.IsTrue(Declare(condition, dot)))
                            continue;
                        Run(body, dot);
                        break;
                    }
                    break;
                case WithNode with:
                    var inner = Declare(with.Value, dot);
                    if (TemplateFunctions.IsTrue(inner))
                        Run(with.Body, inner);
                    else
                        Run(with.Otherwise, dot);
                    break;
                case RangeNode range:
                    Range(range, dot);
                    break;
            }
            _variables.RemoveRange(mark, _variables.Count - mark);
        }

        private void Range(RangeNode range, object? dot)
        {
            var items = Evaluate(range.Items, dot) switch
            {
                null => [],
                Map map => map.Select(member => ((object?)member.Key, member.Value)).ToList(),
                IReadOnlyList<object?> list => list.Select((item, index) => ((object?)(long)index, item)).ToList(),
                var other => throw Fault(range.Line, $"cannot walk over {Tree.KindOf(other)}"),
            };
            foreach (var (key, item) in items)
            {
                var mark = _variables.Count;
                var names = range.Items.Variables;
                if (names.Count == 2)
                    _variables.Add((names[0], key));
                if (names.Count > 0)
                    _variables.Add((names[^1], item));
                Run(range.Body, item);
                _variables.RemoveRange(mark, _variables.Count - mark);
            }
            if (items.Count == 0)
                Run(range.Otherwise, dot);
        }

        private object? Declare(Pipeline pipeline, object? dot)
        {
            var value = Evaluate(pipeline, dot);
            if (pipeline.Variables is not [var name])
                return value;
            if (pipeline.Assigns)
            {
                var at = _variables.FindLastIndex(variable => variable.Name == name);
                if (at < 0)
                    throw Fault(pipeline.Line, $"{name} is assigned before it is declared");
                _variables[at] = (name, value);
            }
            else
            {
                _variables.Add((name, value));
            }
            return value;
        }

        private object? Evaluate(Pipeline pipeline, object? dot)
        {
            try
            {
                object? value = null;
                for (var i = 0; i < pipeline.Commands.Count; i++)
                    value = Evaluate(pipeline.Commands[i], dot, i > 0, value);
                return value;
            }
            catch (Exception e) when (e is ArgumentException or FormatException or InvalidCastException or InstallException or OverflowException)
            {
                throw Fault(pipeline.Line, e.Message, e);
            }
        }

        private object? Evaluate(Command command, object? dot, bool piped, object? value)
        {
            if (command.Operands[0] is not FunctionName { Name: var name })
            {
                if (command.Operands.Count > 1 || piped)
                    throw new ArgumentException("only a function takes arguments");
                return Evaluate(command.Operands[0], dot);
            }
            var operands = command.Operands.Skip(1).Select(operand => (Func<object?>)(() => Evaluate(operand, dot)));
            if (piped)
                operands = operands.Append(() => value);
            // The rest is not looked at once it is decided.
            if (name is "and" or "or")
            {
                object? last = null;
                foreach (var operand in operands)
                {
                    last = operand();
                    if (TemplateFunctions.IsTrue(last) == (name == "or"))
                        break;
                }
                return last;
            }
            var arguments = operands.Select(operand => operand()).ToList();
            return name == "include"
                ? arguments is [string template, var inner] ? _run.Include(template, inner) : throw new ArgumentException("include wants a name and a value")
                : TemplateFunctions.Call(name, arguments, _run.Environment);
        }

        private object? Evaluate(Operand operand, object? dot)
        {
            switch (operand)
            {
                case Literal literal:
                    return literal.Value;
                case FunctionName function:
                    return TemplateFunctions.Call(function.Name, [], _run.Environment);
                case Chain chain:
                    var value = chain.Inner is { } inner ? Evaluate(inner, dot) : chain.Variable is { } name ? Variable(name) : dot;
                    var path = chain.Variable ?? "";
                    foreach (var field in chain.Fields)
                    {
                        path += $".{field}";
                        value = value is Map map && map.TryGetValue(field, out var next) ? next : throw new ArgumentException($"there is no {path}");
                    }
                    return value;
                default:
                    throw new InvalidOperationException();
            }
        }

        private object? Variable(string name)
        {
            var at = _variables.FindLastIndex(variable => variable.Name == name);
            return at >= 0 ? _variables[at].Value : throw new ArgumentException($"there is no variable {name}");
        }

        private TemplateException Fault(int line, string message, Exception? inner = null) =>
            inner is { InnerException: TemplateException cause } ? cause : new TemplateException(_file, line, message, inner);
    }

    private IChartEnvironment Environment => environment;
}
