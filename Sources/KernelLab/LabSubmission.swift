import UserCode

extension LabBuilder {
  /// Builds the code of a submission. The process that builds unpacks its archive, and finds its code.
  ///
  /// - Parameters:
  ///   - submission: The files.
  ///   - linux: The kernel, as in ``LabSources/linux``; nil for the version that the submission names, or the usual one.
  ///   - requiredParts: The parts that the submission must have.
  ///   - found: Gets the code before it is compiled, with the names of its files.
  /// - Throws: ``LabFailure``. Its `isOfCode` tells code that does not compile.
  public func build(
    _ submission: SubmissionFiles, linux: String?,
    requiring requiredParts: Set<CodeKind>, found: (CodeSources) -> Void
  ) throws(LabFailure) -> LabImages {
    var code = CodeSources()
    return try build { name, value in
      switch name {
      case "module": code.module = value
      case "hook": code.hook = value
      case "hook-function": code.hookFunction = value
      case "patch": code.patch = value
      case "submission": found(code)
      default: break
      }
    } _: { (worker) throws(LabFailure) in
      do throws(CodeFailure) {
        var files = submission
        try files.unpack()
        let found = try Submission(files, linux: linux, isForAnyKernel: true)
        try found.require(requiredParts)
        for (name, value) in [
          ("module", found.sources.module), ("hook", found.sources.hook),
          ("hook-function", found.sources.hookFunction), ("patch", found.sources.patch),
        ] {
          if let value { worker.tell(.result, "\(name)=\(value)") }
        }
        worker.tell(.result, "submission=found")
        var sources = LabSources()
        sources.linux = found.sources.linux
        sources.patches = found.sources.patch.map { [$0] } ?? []
        sources.hook = found.sources.hook
        sources.hookFunction = found.sources.hookFunction
        sources.module = found.sources.module
        sources.files = found.contents.map { LabFile(name: $0.name, bytes: $0.bytes) }
        return sources
      } catch {
        throw LabFailure(error.description)
      }
    }
  }
}
