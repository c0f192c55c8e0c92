using System.CommandLine;
using Mesh.Joining;
using Mesh.Joining.Tokens;

namespace Mesh.Cli.Commands.Joining;

/// <summary>A token as an argument, from a file, or from standard input, where other users of the machine cannot see it.</summary>
internal sealed class TokenArgument
{
    public Argument<string?> Text { get; } = new("TOKEN")
    {
        Description = "What `token create` printed; - reads it from standard input",
        Arity = ArgumentArity.ZeroOrOne,
    };

    public Option<string?> File { get; } = new("--token-file") { Description = "File that holds the token" };

    public void AddTo(Command command)
    {
        command.Add(Text);
        command.Add(File);
    }

    public bool IsGiven(ParseResult parsed) => parsed.GetValue(Text) is not null || parsed.GetValue(File) is not null;

    public JoinToken Read(ParseResult parsed)
    {
        var (text, file) = (parsed.GetValue(Text), parsed.GetValue(File));
        if (text is not null == file is not null)
            throw new CliException("give one token: as an argument, as - for standard input, or with --token-file FILE");
        try
        {
            return JoinToken.Parse(file is not null ? System.IO.File.ReadAllText(file) : text == "-" ? Console.In.ReadToEnd() : text!);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CliException($"--token-file {file}: {InWords.Of(e)}");
        }
    }
}
