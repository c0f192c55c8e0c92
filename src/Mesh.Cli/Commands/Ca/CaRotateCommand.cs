using System.CommandLine;
using Mesh.Pki;

namespace Mesh.Cli.Commands.Ca;

/// <summary>`mesh ca rotate`: replaces the authority, one step a run, so that nobody is cut.</summary>
internal static class CaRotateCommand
{
    public static Command Build(TextWriter output)
    {
        var options = new CaOptions();
        var to = new Option<string?>("--to")
        {
            Description = "Go on until this stage and no further: announced, reissued, settled; run again, it changes nothing",
        };
        to.AcceptOnlyFromAmong("announced", "reissued", "settled");
        var force = new Option<bool>("--force") { Description = "Take the step although it cuts those who are named" };
        var cancel = new Option<bool>("--cancel") { Description = "Take an announcement back" };
        var command = new Command("rotate",
            "Replace the authority in three steps, one a run: trust the next one; sign with it; drop the previous one.");
        options.AddTo(command);
        foreach (var option in new Option[] { to, force, cancel })
            command.Add(option);
        command.SetAction(parsed =>
        {
            var pki = options.Open(parsed);
            // A run that was killed after its step may have left old copies, here and where they were copied to.
            pki.Finish();
            options.Copy(parsed, pki, output);
            if (parsed.GetValue(cancel))
            {
                if (parsed.GetValue(to) is not null || parsed.GetValue(force))
                    throw new CliException("--cancel goes alone");
                pki.CancelRotation();
            }
            else if (parsed.GetValue(to) is not { } target)
            {
                pki.Rotate(parsed.GetValue(force));
            }
            else
            {
                var goal = Enum.Parse<RotationStage>(target, ignoreCase: true);
                var stage = pki.Settings.Stage;
                // Settled is where a rotation ends; it does not begin one.
                if (stage != goal && stage == RotationStage.Reissued && goal == RotationStage.Announced)
                    throw new CliException("--to announced: the next authority signs already; go on with --to settled");
                while (stage != goal && !(stage == RotationStage.Settled && goal == RotationStage.Settled))
                {
                    stage = pki.Rotate(parsed.GetValue(force));
                    options.Copy(parsed, pki, output);
                }
            }
            options.Copy(parsed, pki, output);
            output.Write(CaText.Format(pki.View(), DateTimeOffset.UtcNow, options.How(parsed)));
            return 0;
        });
        return command;
    }
}
