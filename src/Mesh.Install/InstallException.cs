namespace Mesh.Install;

/// <summary>Something that keeps an installation from going on and that a person can mend: a complete message, of one or several lines.</summary>
public sealed class InstallException(string message, Exception? inner = null) : Exception(message, inner);
