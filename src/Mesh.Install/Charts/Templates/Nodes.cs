namespace Mesh.Install.Charts.Templates;

/// <summary>A piece of a template.</summary>
internal abstract record Node(int Line);

internal sealed record TextNode(int Line, string Text) : Node(Line);

/// <summary>{{ pipeline }}: prints its value, unless it declares or assigns a variable.</summary>
internal sealed record ActionNode(int Line, Pipeline Pipeline) : Node(Line);

/// <summary>{{ if }} … {{ else if }} … {{ else }} … {{ end }}; the last branch may have no condition.</summary>
internal sealed record IfNode(int Line, IReadOnlyList<(Pipeline? Condition, IReadOnlyList<Node> Body)> Branches) : Node(Line);

internal sealed record WithNode(int Line, Pipeline Value, IReadOnlyList<Node> Body, IReadOnlyList<Node> Otherwise) : Node(Line);

internal sealed record RangeNode(int Line, Pipeline Items, IReadOnlyList<Node> Body, IReadOnlyList<Node> Otherwise) : Node(Line);

/// <param name="Variables">With their $; what is declared (:=) or assigned (=), empty for neither. Two only in a range.</param>
/// <param name="Commands">The value of each is the last argument of the next.</param>
internal sealed record Pipeline(int Line, IReadOnlyList<string> Variables, bool Assigns, IReadOnlyList<Command> Commands);

/// <summary>A value, or a function with its arguments.</summary>
internal sealed record Command(IReadOnlyList<Operand> Operands);

internal abstract record Operand;

internal sealed record Literal(object? Value) : Operand;

internal sealed record FunctionName(string Name) : Operand;

/// <summary>A value and the fields to go down from it.</summary>
/// <param name="Variable">With its $; null for the dot, or for Inner.</param>
internal sealed record Chain(string? Variable, Pipeline? Inner, IReadOnlyList<string> Fields) : Operand;
