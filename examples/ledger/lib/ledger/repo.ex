defmodule Ledger.Repo do
  use Ecto.Repo, otp_app: :ledger, adapter: Application.compile_env!(:ledger, :adapter)
end
