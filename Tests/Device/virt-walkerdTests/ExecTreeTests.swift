import DaemonSupport
import Testing

/// `virt-walkerd exec --tree`: the tree of a command's machine by FUSE, which the process serves that also looks up the paths of the command.
@Suite(.timeLimit(.minutes(5))) struct ExecTreeTests {
  /// Runs a command by `exec` with a tree at $tree, in a new directory. The lines must not contain a single quote.
  private func exec(_ line: String, after: String = "") async throws -> Outcome {
    try await shell(
      """
      unset VIRT_WALKERD_TREE
      work=$(mktemp -d) && cd "$work" || exit 99
      export tree="$work/tree"
      timeout 60 $virt_walkerd exec --tree tree -- bash -c '
      \(line)
      '
      echo "status $?"
      \(after)
      ls -A; cd / && rm -rf "$work"
      """)
  }

  @Test func commandUsesItsTree() async throws {
    let run = try await exec(
      """
      echo -n A >/dev/virt_walker
      cat "$tree/pte"; cd "$tree" && cat pte ./guest/../pte && ls | wc -l
      echo "guest ldrb w0,[0x40000000]" >control && head -1 control
      $virt_walkerd tree pte; $virt_walkerd walk --tree "$tree" | head -1
      exec 5<trace_pipe; echo -n B >/dev/virt_walker; timeout 30 head -2 <&5 | wc -l
      """)
    #expect(
      run.output == """
        02080002004007fd
        02080002004007fd
        02080002004007fd
        14
        guest ldrb w0,[0x40000000]
        02080002004007fd
        walk of 0x40000000: 4K granule, 40-bit IPA, start level 1
        2
        status 0

        """, "\(run.errors)")
  }

  /// Names and links that are looked up in the tree, or on a way through it.
  @Test func pathsThroughTheTree() async throws {
    let run = try await exec(
      """
      cat "$tree/missing"; cat "$tree/guest/missing/x"; stat -c %F "$tree" "$tree/guest"
      ln -s "$tree/guest" link; ln -s link/dmesg second; ln -s "$tree" root; ln -s loop loop
      wc -l <second; cat link/missing root/missing root/guest/missing loop
      cd "$tree/guest"; cat missing /proc/self/cwd/missing ../missing; wc -l <dmesg
      echo -n A >"../../../../../../../../dev/virt_walker"; head -c1 "$OLDPWD/root/../../../dev/virt_walker"; echo
      exec 5<"$tree"; cat /dev/fd/5/missing; cat /proc/$$/root/$tree/pte; rm "$tree/pte"; mv "$tree/pte" x; mkdir "$tree/x"
      cd "$OLDPWD"; rm link second root loop
      """)
    #expect(
      run.output == """
        directory
        directory
        0
        0
        A
        02080002004007fd
        status 0

        """, "\(run.errors)")
    #expect(run.errors.matches(of: /: No such file or directory/).count >= 9, "\(run.errors)")
  }

  @Test(arguments: ["TERM", "KILL"])
  func endRemovesTheTree(signal: String) async throws {
    let run = try await exec(
      """
      cat "$tree/pte"; kill -\(signal) $PPID; sleep 0.2
      """,
      after:
        "for i in $(seq 500); do [ -e tree ] || break; sleep 0.01; done; grep -c $work /proc/mounts"
    )
    let status = signal == "KILL" ? 137 : 143
    #expect(run.output == "00000002004007fd\nstatus \(status)\n0\n", "\(run.errors)")
  }

  @Test func commandGoesOnWithoutItsTree() async throws {
    let run = try await exec(
      """
      umount "$tree"; echo -n A >/dev/virt_walker; head -c1 /dev/virt_walker; echo; ls "$tree" | wc -l
      """)
    #expect(run.output == "A\n0\nstatus 0\n", "\(run.errors)")
    #expect(run.errors.contains("the command goes on without a tree"), "\(run.errors)")
  }

  @Test func treeThatCannotBeMade() async throws {
    let run = try await shell(
      """
      work=$(mktemp -d) && cd "$work" || exit 99
      touch file; mkdir full; touch full/file
      for tree in file full missing/tree /dev; do $virt_walkerd exec --tree $tree -- echo ran; echo $?; done
      $virt_walkerd exec --tree none -- $virt_walkerd tree --name virt_walker_missing; echo $?
      cd / && rm -r "$work"
      """)
    #expect(run.output == "73\n73\n73\n64\n69\n", "\(run.errors)")
    #expect(
      run.errors.contains("without --tree, virt-walkerd tree shows the files without a mount"))
  }
}
