// Sockets from other namespaces, file modes, libz: this runs where the mesh runs.
[assembly: System.Runtime.Versioning.SupportedOSPlatform("linux")]
