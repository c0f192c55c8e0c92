namespace Mesh.Cli.Demo;

/// <summary>Tells the story: in colour on a terminal, as plain text everywhere else.</summary>
internal sealed class Narrator(TextWriter output, bool colour)
{
    private int _step;

    public int Failures { get; private set; }

    public void Step(string title) => output.WriteLine($"\n{Paint("1", $"{++_step}. {title}")}");

    public void Say(string text)
    {
        foreach (var line in text.TrimEnd('\n').Split('\n'))
            output.WriteLine(line.Length == 0 ? "" : $"   {line}");
    }

    public void Check(bool held, string claim, string? otherwise = null)
    {
        if (!held)
            Failures++;
        output.WriteLine(held
            ? $"   {Paint("32", "held:")} {claim}"
            : $"   {Paint("31", "FAILED:")} {claim}{(otherwise is null ? "" : $": {otherwise}")}");
    }

    private string Paint(string code, string text) => colour ? $"\u001b[{code}m{text}\u001b[0m" : text;
}
