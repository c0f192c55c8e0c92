using System.CommandLine;

namespace Mesh.Cli.Commands.Ca;

/// <summary>`mesh ca show`. Exit code 1 when something has expired.</summary>
internal static class CaShowCommand
{
    public static Command Build(TextWriter output)
    {
        var options = new CaOptions();
        var format = new Option<string>("--output", "-o") { Description = "text or json", DefaultValueFactory = _ => "text" };
        format.AcceptOnlyFromAmong("text", "json");
        var command = new Command("show", "Who signs, who is trusted, what expires when, how far a rotation is and what comes next.");
        options.AddTo(command, copies: false);
        command.Add(format);
        command.SetAction(parsed =>
        {
            var view = options.Open(parsed).View();
            var now = DateTimeOffset.UtcNow;
            var how = options.How(parsed);
            output.Write(parsed.GetValue(format) == "json" ? CaReport.Of(view, now, how).ToJson() + "\n" : CaText.Format(view, now, how));
            return CaText.Expired(view, now) ? 1 : 0;
        });
        return command;
    }
}
