namespace Mesh.Install.Charts.Templates;

/// <summary>A template that cannot be read or executed. The message names file and line.</summary>
public sealed class TemplateException(string file, int line, string message, Exception? inner = null)
    : Exception($"{file}:{line}: {message}", inner)
{
    /// <summary>What is wrong, without the place.</summary>
    public string Fault { get; } = message;
}
