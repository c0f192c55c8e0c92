namespace Mesh.Pki;

/// <summary>Something about certificates that an operator can mend: a complete message that names the file and the mend.</summary>
public sealed class PkiException(string message, Exception? inner = null) : Exception(message, inner);
