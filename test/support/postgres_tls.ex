defmodule Causeway.PostgresTLS do
  @moduledoc false
  # A certificate authority of the tests' own, and certificates for a server on localhost and for a client.

  @doc """
  Makes them in a folder of their own, which the server's unprivileged user can reach: paths of the authority's
  certificate (`:ca`), of another authority's, which signed none of these (`:other_ca`), and of certificate and key of
  the server and of the client, whose common name is `user`.
  """
  def make!(user \\ "postgres") do
    dir =
      Path.join(
        System.tmp_dir!(),
        "causeway-tls-#{System.pid()}-#{System.unique_integer([:positive])}"
      )

    File.mkdir!(dir)
    File.chmod!(dir, 0o755)
    path = &Path.join(dir, &1)
    for name <- ~w(ca other_ca), do: authority(path, name)
    signed(path, "server", "localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    signed(path, "client", user, "extendedKeyUsage=clientAuth")
    if File.stat!(dir).uid == 0, do: File.chown!(path.("server.key"), 65_534)

    %{
      dir: dir,
      ca: path.("ca.crt"),
      other_ca: path.("other_ca.crt"),
      server_cert: path.("server.crt"),
      server_key: path.("server.key"),
      client_cert: path.("client.crt"),
      client_key: path.("client.key")
    }
  end

  def remove!(tls), do: File.rm_rf!(tls.dir)

  defp authority(path, name) do
    key(path, name)
    subject = ["-subj", "/CN=Causeway test #{name}", "-days", "30"]

    openssl(
      ["req", "-x509", "-new", "-key", path.("#{name}.key"), "-out", path.("#{name}.crt")] ++
        subject
    )
  end

  defp signed(path, name, common_name, extension) do
    key(path, name)
    File.write!(path.("#{name}.ext"), extension)
    request = ["-key", path.("#{name}.key"), "-out", path.("#{name}.csr")]
    openssl(["req", "-new", "-subj", "/CN=#{common_name}"] ++ request)
    by = ["-CA", path.("ca.crt"), "-CAkey", path.("ca.key"), "-CAcreateserial", "-days", "30"]

    files = [
      "-in",
      path.("#{name}.csr"),
      "-out",
      path.("#{name}.crt"),
      "-extfile",
      path.("#{name}.ext")
    ]

    openssl(["x509", "-req"] ++ by ++ files)
  end

  defp key(path, name) do
    file = path.("#{name}.key")
    openssl(~w(genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out) ++ [file])
    File.chmod!(file, 0o600)
  end

  defp openssl(args) do
    case System.cmd("openssl", args, stderr_to_stdout: true) do
      {_, 0} -> :ok
      {output, status} -> raise "openssl #{hd(args)} ended with #{status}: #{output}"
    end
  end
end
