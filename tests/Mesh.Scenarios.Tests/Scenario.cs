namespace Mesh.Scenarios.Tests;

/// <summary>A story from a file: its steps in order, and the texts they name. See tests/scenarios/README.md.</summary>
internal sealed class Scenario
{
    private Scenario(string name, IReadOnlyList<(int Line, string[] Words)> steps, IReadOnlyDictionary<string, string> texts)
    {
        Name = name;
        Steps = steps;
        Texts = texts;
    }

    public string Name { get; }

    public IReadOnlyList<(int Line, string[] Words)> Steps { get; }

    public IReadOnlyDictionary<string, string> Texts { get; }

    public string Text(string name) => Texts.TryGetValue(name, out var text)
        ? text
        : throw new FormatException($"{Name}: no text is named '{name}' (there are {string.Join(", ", Texts.Keys.Order())})");

    /// <exception cref="FormatException">Names the file and the line.</exception>
    public static Scenario Read(string file)
    {
        var steps = new List<(int, string[])>();
        var texts = new Dictionary<string, List<string>>();
        List<string>? text = null;
        var number = 0;
        foreach (var line in File.ReadLines(file))
        {
            number++;
            if (line.StartsWith("-- ", StringComparison.Ordinal) && line.EndsWith(" --", StringComparison.Ordinal))
            {
                text = [];
                if (!texts.TryAdd(line[3..^3].Trim(), text))
                    throw new FormatException($"{file}:{number}: this text is there twice");
            }
            else if (text is not null)
            {
                text.Add(line);
            }
            else if (line.Trim() is { Length: > 0 } step && step[0] != '#')
            {
                steps.Add((number, step.Split(' ', StringSplitOptions.RemoveEmptyEntries)));
            }
        }
        return new Scenario(Path.GetFileName(file), steps, texts.ToDictionary(pair => pair.Key, pair => string.Join('\n', pair.Value)));
    }
}
