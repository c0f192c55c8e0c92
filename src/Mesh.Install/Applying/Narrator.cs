namespace Mesh.Install.Applying;

/// <summary>Tells a person what goes on, one line per change.</summary>
/// <param name="line">Takes the finished line.</param>
public sealed class Narrator(Action<string> line)
{
    private string _waiting = "";

    public void Say(string text) => line(text);

    public void Did(string text) => line($"   {text}");

    /// <summary>Tells what is waited for, when that has changed since the last time.</summary>
    public void Waits(TimeSpan since, string what)
    {
        if (what == _waiting)
            return;
        _waiting = what;
        line($"⌛ ({since.TotalSeconds:0}s) {what}");
    }
}
